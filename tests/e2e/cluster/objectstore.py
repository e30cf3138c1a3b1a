"""An S3 of one's own: versitygw in the rack, which speaks TLS under the name that the values ask for."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.e2e.cluster.cluster import Cluster
from tests.e2e.cluster.images import address
from tests.e2e.cluster.node import run
from tests.e2e.processes import Processes, wait_until
from tests.e2e.toolchain import tool

REGION = "us-east-1"


@dataclass(frozen=True)
class ObjectStore:
    """A running S3 with one bucket; ``certificate`` is its authority's, which nobody trusts yet."""

    bucket: Path
    certificate: Path
    key: dict[str, str]  # the Secret that docs/operations.md asks for

    def files(self, prefix: str) -> set[str]:
        """Return the names of the objects below a prefix."""
        return {str(path.relative_to(self.bucket)) for path in (self.bucket / prefix).rglob("*") if path.is_file()}


def object_store(folder: Path, cluster: Cluster, processes: Processes, location: str, bucket: str) -> ObjectStore:
    """Start one at ``location`` (host:port), a name that leads to the rack (``cluster``'s ``outside``)."""
    host, port = location.rsplit(":", 1)
    for name in ("data", "metadata", "users"):
        (folder / name).mkdir(parents=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    serving = authority.issue_cert(host, cluster.gateway)
    serving.private_key_and_cert_chain_pem.write_to_path(folder / "serving.pem")
    owner = {"AWS_ACCESS_KEY_ID": "platform", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}
    who = ("--access", owner["AWS_ACCESS_KEY_ID"], "--secret", owner["AWS_SECRET_ACCESS_KEY"], "--region", REGION)
    pair = ("--cert", folder / "serving.pem", "--key", folder / "serving.pem", "--iam-dir", folder / "users")
    store = ("posix", "--sidecar", folder / "metadata", folder / "data")
    listen = f"{cluster.gateway}:{port}"
    processes.start("s3", [*cluster.rack, tool("versitygw"), "--quiet", "--port", listen, *pair, *who, *store])
    create = ("create-bucket", "--owner", owner["AWS_ACCESS_KEY_ID"], "--bucket", bucket)
    admin = (tool("versitygw"), "admin", *who, "--endpoint-url", f"https://{listen}", *create)

    def created() -> bool:
        try:
            run(*admin, env={"SSL_CERT_FILE": str(folder / "ca.crt")})
        except RuntimeError as error:
            raise AssertionError(error) from None
        return True

    wait_until(created, "the bucket is there", 20)
    return ObjectStore(folder / "data" / bucket, folder / "ca.crt", owner)


def let_trust(cluster: Cluster, image: str, store: ObjectStore, scratch: Path) -> None:
    """Add a layer with the authority of the store to an image in the registry, where programs in Go look for it."""
    scratch.mkdir(exist_ok=True)
    folder = scratch / "etc" / "ssl" / "certs"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "object-store.crt").write_bytes(store.certificate.read_bytes())
    run("tar", "-C", scratch, "-cf", scratch / "layer.tar", "etc")
    name = address(cluster.registry, image)
    append = (tool("crane"), "append", "--base", name, "--new_layer", scratch / "layer.tar", "--new_tag", name)
    run(*append, env=cluster.registry.trust)
