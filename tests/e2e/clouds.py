"""Three object stores by their own APIs on loopback, at the addresses that a bake names.

A program runs as it would in the cloud, with not a line of its configuration changed. Only its environment differs, by what
`Cloud.environment` returns: `HTTPS_PROXY` takes the public names to servers here (address), `SSL_CERT_FILE` makes it trust
them (trust), and the cloud's own variables say who it is (credentials).

- S3: versitygw on a folder, with signatures checked and bucket ACLs; Amazon's by the bucket's own name, and one of one's own
  with the bucket in the path.
- GCS: fake-gcs-server on a folder. It knows no permissions, so the refusal is spoken by `Identity`, as GCS words it.
- Azure Blob: Azurite, which checks lifetime, issuer and audience of Entra ID tokens.

Tokens (Entra ID, Google) and the caller's identity (AWS STS) come from `Identity`, which signs nothing.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.e2e import toolchain
from tests.e2e.processes import LOOPBACK, Process, Processes, free_port, wait_until

OWNER, STRANGER = "owner", "stranger"
TENANT = "11111111-2222-3333-4444-555555555555"
STORAGE_AUDIENCE = "https://storage.azure.com"


class Authority:
    """A certificate authority of our own; ``trust`` is its certificate, ``pair`` certificate and key of a server."""

    def __init__(self, folder: Path, *names: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA(key_type=trustme.KeyType.RSA)
        serving = authority.issue_cert(*names, LOOPBACK, key_type=trustme.KeyType.RSA)
        self.trust, self.certificate, self.key = (folder / name for name in ("ca.pem", "serving.pem", "serving.key"))
        authority.cert_pem.write_to_path(self.trust)
        serving.private_key_pem.write_to_path(self.key)
        self.certificate.write_bytes(b"".join(part.bytes() for part in serving.cert_chain_pems))


class Proxy:
    """An HTTP proxy that knows only CONNECT, and only the names in ``routes`` (a name, or ``*.name`` for all below it).

    What it is asked for is counted in ``asked``; a name without a route is refused. While the server behind a route is
    away, connections are reset.
    """

    def __init__(self, routes: Mapping[str, int]) -> None:
        self.routes = dict(routes)
        self.asked: Counter[str] = Counter()
        self._listener = socket.create_server((LOOPBACK, free_port()))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._listener.getsockname()[1]}"

    def stop(self) -> None:
        self._listener.close()

    def port(self, name: str) -> int | None:
        """Return where a name leads, None without a route."""
        return self.routes.get(name) or self.routes.get("*." + name.partition(".")[2])

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (part := client.recv(4096)):
                    return
                head += part
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split()
            name = target.rpartition(":")[0]
            self.asked[name] += 1
            port = self.port(name) if method == "CONNECT" else None
            if port is None:
                client.sendall(b"HTTP/1.1 403 No route\r\n\r\n")
                return
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            try:
                server = socket.create_connection((LOOPBACK, port))
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            with server:
                back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
                back.start()
                self._pump(client, server)
                back.join()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(65536):
                sink.sendall(part)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def entra_token(audience: str) -> str:
    """Return an Entra ID access token for ``audience``, unsigned."""
    now = int(time.time())
    claims: dict[str, str | int] = {
        "aud": audience,
        "iss": f"https://sts.windows.net/{TENANT}/",
        "tid": TENANT,
        "oid": TENANT,
        "sub": OWNER,
    }
    claims |= {"iat": now, "nbf": now - 60, "exp": now + 3600}
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, "unsigned"])


class Identity(ThreadingHTTPServer):
    """Entra ID, Google's token endpoint and AWS STS, as far as clients with a service principal, a service account's key
    or an access key ask them."""

    daemon_threads = True

    def __init__(self, authority: Authority) -> None:
        super().__init__((LOOPBACK, free_port()), _IdentityHandler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.certificate, authority.key)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _IdentityHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
        host = self.headers["Host"].partition(":")[0]
        status, kind, text = 404, "application/json", "{}"
        if host == "login.microsoftonline.com":
            status, text = 200, json.dumps(self._entra(body))
        elif host == "oauth2.googleapis.com":
            status, text = 200, json.dumps({"access_token": OWNER, "token_type": "Bearer", "expires_in": 3600})
        elif host == "storage.googleapis.com":
            message = f"{STRANGER} does not have storage.objects.list access to the Google Cloud Storage bucket."
            error = {"code": 403, "message": message, "errors": [{"message": message, "reason": "forbidden"}]}
            status, text = 403, json.dumps({"error": error})
        elif host.startswith("sts."):
            status, kind = 200, "text/xml"
            text = (
                '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
                f"<Arn>arn:aws:iam::123456789012:user/{OWNER}</Arn><UserId>{OWNER}</UserId><Account>123456789012</Account>"
                "</GetCallerIdentityResult></GetCallerIdentityResponse>"
            )
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

    def _entra(self, body: str) -> dict[str, Any]:
        base = f"https://login.microsoftonline.com/{TENANT}"
        if self.path.startswith("/common/discovery/instance"):
            known = ["login.microsoftonline.com"]
            aliases = [{"preferred_network": known[0], "preferred_cache": known[0], "aliases": known}]
            return {"tenant_discovery_endpoint": f"{base}/v2.0/.well-known/openid-configuration", "metadata": aliases}
        if "openid-configuration" in self.path:
            return {
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "issuer": f"{base}/v2.0",
            }
        audience = "https://elsewhere.example" if f"client_id={STRANGER}" in body else STORAGE_AUDIENCE
        return {"token_type": "Bearer", "expires_in": 3600, "access_token": entra_token(audience)}

    def log_message(self, *_: object) -> None:
        pass


class Cloud(ABC):
    """One provider's object store below ``folder``, at its public names; ``names`` are those of its API, ``identity`` those
    of who says who somebody is."""

    names: tuple[str, ...]
    identity: tuple[str, ...]

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder, self.processes, self.port = folder, processes, free_port()
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        self.authority = Authority(folder / "tls", *self.names, *self.identity)
        self._identity = Identity(self.authority)
        there = dict.fromkeys(self.names, self.port)
        self.proxy = Proxy(there | dict.fromkeys(self.identity, self._identity.server_port))
        self.process: Process | None = None

    def start(self) -> None:
        """Start the server, again on what it held before."""
        name = type(self).__name__
        process = self.process = self.processes.start(name.lower(), self.command(), env=self.server_environment())

        def answers() -> bool:
            assert process.running, process.tail()
            return bool(self.request("GET", "/").status_code)

        wait_until(answers, f"{name} answers")

    def stop(self) -> None:
        """Take the store away. It ends in order: Azurite writes its index from time to time only."""
        if self.process:
            self.process.stop()

    def close(self) -> None:
        self.proxy.stop()
        self._identity.stop()

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request by the store's own name."""
        with httpx.Client(
            proxy=self.proxy.url, verify=ssl.create_default_context(cafile=self.authority.trust), trust_env=False
        ) as client:
            return client.request(method, f"https://{self.host}{path}", **more)

    @property
    def host(self) -> str:
        return self.names[0]

    def environment(self, who: str = OWNER) -> dict[str, str]:
        """Return the environment of a program that uses the store as ``who``."""
        trust = {"HTTPS_PROXY": self.proxy.url, "SSL_CERT_FILE": str(self.authority.trust), "NO_PROXY": ""}
        return trust | self.credentials(who)

    @contextmanager
    def refusing(self) -> Iterator[str]:
        """Return who is refused during the block."""
        yield STRANGER

    def server_environment(self) -> dict[str, str]:
        return {}

    @abstractmethod
    def command(self) -> list[str | Path]:
        """Return the command line of the server."""

    @abstractmethod
    def create(self, bucket: str) -> None:
        """Make a bucket that OWNER may use and STRANGER may not."""

    @abstractmethod
    def credentials(self, who: str) -> dict[str, str]:
        """Return the variables by which the provider's SDKs know ``who``."""


class S3(Cloud):
    """versitygw; ``endpoint`` is the name below which buckets have theirs (a client's choice of the region's two)."""

    identity = ("sts.amazonaws.com", "sts.*.amazonaws.com")
    SECRET = "never-used-anywhere-else"

    def __init__(self, folder: Path, processes: Processes, region: str, endpoint: str) -> None:
        self.region, self.options = region, ["--virtual-domain", endpoint]
        self.names = (endpoint, f"*.{endpoint}")
        self.identity = ("sts.amazonaws.com", f"sts.{region}.amazonaws.com")
        super().__init__(folder, processes)
        self.users = folder / "users"
        self.users.mkdir()

    def command(self) -> list[str | Path]:
        tls: list[str | Path] = ["--cert", self.authority.certificate, "--key", self.authority.key]
        root: list[str | Path] = [
            "--access",
            OWNER,
            "--secret",
            self.SECRET,
            "--region",
            self.region,
            "--iam-dir",
            self.users,
        ]
        metadata = self.folder / "metadata"
        metadata.mkdir(exist_ok=True)
        return [
            toolchain.tool("versitygw"), "--quiet", "--port", f"{LOOPBACK}:{self.port}", *self.options,
            *tls, *root, "posix", "--sidecar", metadata, self.data,
        ]  # fmt: skip

    def create(self, bucket: str) -> None:
        for arguments in (
            ["create-bucket", "--owner", OWNER, "--bucket", bucket],
            ["create-user", "--access", STRANGER, "--secret", self.SECRET, "--role", "user"],
        ):
            done = subprocess.run(
                [toolchain.tool("versitygw"), "admin", "--access", OWNER, "--secret", self.SECRET, "--region", self.region,
                 "--endpoint-url", f"https://{LOOPBACK}:{self.port}", *arguments],
                env={"SSL_CERT_FILE": str(self.authority.trust)}, capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"

    def credentials(self, who: str) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": who,
            "AWS_SECRET_ACCESS_KEY": self.SECRET,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CA_BUNDLE": str(self.authority.trust),  # this machine's own, where set, wins over SSL_CERT_FILE
        }


class OwnS3(S3):
    """versitygw at ``host``; ``keys`` are the variables that pods are given, by their key in the Secret."""

    def __init__(self, folder: Path, processes: Processes, host: str, keys: Mapping[str, str]) -> None:
        super().__init__(folder, processes, "us-east-1", host)
        self.options, self.keys = [], keys
        del self.proxy.routes[f"*.{host}"]  # no name below it: buckets are in the path
        for name in self.identity:
            del self.proxy.routes[name]

    def credentials(self, who: str) -> dict[str, str]:
        secret = {"AWS_ACCESS_KEY_ID": who, "AWS_SECRET_ACCESS_KEY": self.SECRET}
        given = {name: secret[key] for name, key in self.keys.items()}
        return given | {"AWS_CA_BUNDLE": str(self.authority.trust)}


class Gcs(Cloud):
    """fake-gcs-server."""

    names = ("storage.googleapis.com",)
    identity = ("oauth2.googleapis.com",)

    def command(self) -> list[str | Path]:
        tls: list[str | Path] = [
            "-cert-location",
            self.authority.certificate,
            "-private-key-location",
            self.authority.key,
        ]
        return [
            toolchain.tool("fake-gcs-server"), "-scheme", "https", "-host", LOOPBACK, "-port", str(self.port), *tls,
            "-backend", "filesystem", "-filesystem-root", self.data,
            "-public-host", self.host, "-external-url", f"https://{self.host}", "-log-level", "warn",
        ]  # fmt: skip

    def create(self, bucket: str) -> None:
        self.request("POST", "/storage/v1/b?project=platform", json={"name": bucket}).raise_for_status()

    @contextmanager
    def refusing(self) -> Iterator[str]:
        there, self.proxy.routes[self.host] = self.proxy.routes[self.host], self._identity.server_port
        try:
            yield STRANGER
        finally:
            self.proxy.routes[self.host] = there

    def credentials(self, who: str) -> dict[str, str]:
        file = self.folder / f"{who}.json"
        if not file.exists():
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
            content = {"type": "service_account", "project_id": "platform", "private_key_id": "1", "private_key": pem}
            content |= {"client_email": f"{who}@platform.iam.gserviceaccount.com", "client_id": "1"}
            content |= {"token_uri": "https://oauth2.googleapis.com/token"}
            file.write_text(json.dumps(content))
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}


class Azure(Cloud):
    """Azurite with one storage ``account``."""

    identity = ("login.microsoftonline.com",)

    def __init__(self, folder: Path, processes: Processes, account: str) -> None:
        self.account = account
        self.names = (f"{account}.blob.core.windows.net",)
        super().__init__(folder, processes)

    def command(self) -> list[str | Path]:
        return [
            toolchain.azurite(), "--blobHost", LOOPBACK, "--blobPort", str(self.port), "--location", self.data, "--silent",
            "--disableTelemetry", "--oauth", "basic", "--cert", self.authority.certificate, "--key", self.authority.key,
        ]  # fmt: skip

    def server_environment(self) -> dict[str, str]:
        return {"AZURITE_ACCOUNTS": f"{self.account}:{base64.b64encode(b'nobody uses keys').decode()}"}

    def create(self, bucket: str) -> None:
        headers = {"Authorization": f"Bearer {entra_token(STORAGE_AUDIENCE)}", "x-ms-version": "2024-11-04"}
        self.request("PUT", f"/{bucket}?restype=container", headers=headers).raise_for_status()

    def credentials(self, who: str) -> dict[str, str]:
        # Both names of each: Azure's SDK and Terraform's.
        return {
            f"{prefix}_{name}": value
            for prefix in ("AZURE", "ARM")
            for name, value in {"TENANT_ID": TENANT, "CLIENT_ID": who, "CLIENT_SECRET": "secret"}.items()
        }


def azurite_is_missing() -> str:
    """Return why Azurite cannot be had here, empty where it can."""
    return "" if shutil.which("npm") and shutil.which("node") else "Azurite needs node and npm on PATH"
