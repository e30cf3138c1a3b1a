"""The baked long-term storage on S3, GCS and Azure Blob by their own APIs: what it says when the bucket fails, that somebody
is told of it, and that it loses nothing.

The configurations are the bake's, unchanged; see `tests/e2e/clouds.py` for what is substituted. Time alone is compressed:
two days of back-dated samples, blocks cut by an orderly end, a Compactor that waits for nothing and ends by itself; alerts
that are told after seconds, by a stack of its own that watches the ingestors.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e import toolchain
from tests.e2e.clouds import OWNER, S3, Azure, Cloud, Gcs, OwnS3, azurite_is_missing
from tests.e2e.datapath.bench.synthetic import Service, request
from tests.e2e.datapath.declared import Declared, replace_flags, substitute
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.test_alerts import WATCH
from tests.e2e.datapath.test_pipeline import every_second
from tests.e2e.datapath.test_slo import changed, rules
from tests.e2e.processes import HTTP, Processes, wait_until

BUCKET, REGION, ACCOUNT, OWN = "acme-platform-blocks", "eu-central-1", "acmeplatform", "minio.example.com:9000"
ANSWERS = {
    "s3": {"object_storage": "s3", "object_storage_location": REGION},
    "own-s3": {"object_storage": "s3", "object_storage_location": OWN},
    "gcs": {"object_storage": "gcs"},
    "azure": {"object_storage": "azure", "object_storage_location": ACCOUNT},
}
AWAY = 60  # seconds
# The Compactor merges what fills its range of two days, aligned, once there is a block after it, and makes 5-minute
# points of blocks of at least 40 hours.
RANGE, AFTER, STEP = 2 * 86400, 4 * 3600, 120
SEGMENTS = (0, RANGE // 2, RANGE, RANGE + AFTER)
PER_STEP = 3  # observations of each of the two statuses
FAILURES = "thanos_objstore_bucket_operation_failures_total"  # what the alert on the object store counts
WRONG_BUCKET = {
    "s3": "The specified bucket does not exist",
    "own-s3": "The specified bucket does not exist",
    "gcs": "googleapi: Error 404: Not Found",
    "azure": "ERROR CODE: ContainerNotFound",
}
NO_PERMISSION = {
    "s3": "Access Denied",
    "own-s3": "Access Denied",
    "gcs": "Error 403: .* does not have storage.objects.list access to the Google Cloud Storage bucket",
    "azure": "ERROR CODE: AuthenticationFailed",
}
AWAY_ERROR = "connection reset by peer"

PROVIDERS = [
    "s3",
    "own-s3",
    "gcs",
    pytest.param("azure", marks=pytest.mark.skipif(bool(azurite_is_missing()), reason=azurite_is_missing())),
]


@dataclass
class LongTerm:
    """A stack whose Thanos uses ``cloud`` by the bake's own configuration; sends made samples to the ingestor."""

    stack: Stack
    cloud: Cloud

    def __post_init__(self) -> None:
        stack = self.stack
        receive, store = (
            stack.declared.values(component)["thanos"]["objstoreConfig"]["value"]
            for component in ("thanos-receive", "thanos-store")
        )
        assert receive == store, "ingestors and the rest of Thanos use different buckets"
        self.config = stack.folder / "objstore.yaml"
        self.config.write_text(receive)
        self.wrong = stack.folder / "wrong.yaml"
        self.wrong.write_text(yaml.safe_dump(substitute(yaml.safe_load(receive), {BUCKET: "acme-platform-typo"})))
        stack.objstore = self.config
        stack.thanos_environment = self.cloud.environment()
        # The samples are days old: keep them as if they were not.
        stack.changes["ingestor"] = lambda arguments: replace_flags(arguments, {"--tsdb.retention": "400d"})
        end = math.floor((time.time() - AFTER - 3600) / RANGE) * RANGE
        self.start = end - RANGE
        self.service = Service("checkout", "native", self.start - STEP)

    def write(self, segment: int) -> None:
        """Write one of the `SEGMENTS` and end the ingestor, which makes a block of it and tries to upload that."""
        stack = self.stack
        stack.start("ingestor", "router")
        message, (metric,) = request([self.service])
        for at in range(self.start + SEGMENTS[segment], self.start + SEGMENTS[segment + 1], STEP):
            self.service.observe([(0.1, True), (2.0, False)] * PER_STEP)
            self.service.write(metric, at)
        url = f"{stack.url('router', 'write')}/api/v1/otlp"
        headers = {"Content-Type": "application/x-protobuf"}

        def accepted() -> bool:
            return HTTP.post(url, content=message.SerializeToString(), headers=headers).status_code == 200

        wait_until(accepted, "the samples are accepted")
        stack.stop("router", "ingestor")

    def blocks(self) -> set[str]:
        """Return the blocks that the ingestor holds on its volume."""
        return {meta.parent.name for meta in (self.stack.folder / "ingestor").glob("*/*/meta.json")}

    def bucket(self) -> dict[str, tuple[int, int]]:
        """Return compaction level and resolution (ms) of each block in the bucket."""
        done = subprocess.run(
            [
                toolchain.tool("thanos"),
                "tools",
                "bucket",
                "ls",
                "--output=wide",
                f"--objstore.config-file={self.config}",
            ],
            env=os.environ | self.cloud.environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        rows = re.findall(r"^(01\w{24}) .*Compaction: (\d+), Downsample: (\d+)", done.stdout, re.M)
        return {block: (int(level), int(resolution)) for block, level, resolution in rows}

    def is_uploaded(self) -> bool:
        return self.metric("ingestor", "thanos_shipper_uploads_total") >= len(self.blocks())

    def metric(self, part: str, name: str) -> float:
        """Return the sum of a program's own metric, 0 where it has none yet."""
        text = HTTP.get(f"{self.stack.url(part)}/metrics").text
        return sum(map(float, re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)))

    @contextmanager
    def ingestor(self, who: str = OWNER, config: Path | None = None) -> Iterator[Callable[[], str]]:
        """Run the ingestor as ``who`` on another configuration; give a function that returns its log since then."""
        stack = self.stack
        log = stack.processes.folder / "ingestor.log"
        begin = log.stat().st_size
        stack.thanos_environment = self.cloud.environment(who)
        stack.objstore = config or self.config
        try:
            stack.start("ingestor")
            yield lambda: log.read_bytes()[begin:].decode(errors="replace")
        finally:
            stack.stop("ingestor")
            stack.thanos_environment, stack.objstore = self.cloud.environment(), self.config


def store(provider: str, declared: Declared, folder: Path, servers: Processes) -> Cloud:
    if provider == "s3":  # Thanos' client takes the dual-stack name of the region.
        return S3(folder, servers, REGION, f"s3.dualstack.{REGION}.amazonaws.com")
    if provider == "own-s3":
        return OwnS3(folder, servers, OWN.partition(":")[0], keys(declared))
    return Gcs(folder, servers) if provider == "gcs" else Azure(folder, servers, ACCOUNT)


def keys(declared: Declared) -> dict[str, str]:
    """Return the variables that pods which use the bucket are given, each with its key in the Secret `object-store`."""
    receive, thanos = (declared.values(component)["thanos"] for component in ("thanos-receive", "thanos-store"))
    found = [
        {each["name"]: each["valueFrom"]["secretKeyRef"] for each in pods.get("extraEnv", [])}
        for pods in (receive["receive"]["ingestor"], thanos["storeGateway"], thanos["compact"])
    ]
    assert found[0] == found[1] == found[2], "not all of Thanos is given the same keys"
    assert {secret["name"] for secret in found[0].values()} == {"object-store"}
    return {name: secret["key"] for name, secret in found[0].items()}


@pytest.fixture(scope="module")
def every(baked: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LongTerm]]:
    """Long-term storage at each provider, with a first block that is not uploaded yet."""
    made: dict[str, LongTerm] = {}
    with ExitStack() as running:
        servers = running.enter_context(Processes(tmp_path_factory.mktemp("clouds") / "logs"))
        for provider in ANSWERS if not azurite_is_missing() else ANSWERS.keys() - {"azure"}:
            folder = tmp_path_factory.mktemp(provider)
            declared = Declared(baked(object_storage_bucket=BUCKET, **ANSWERS[provider]))
            cloud = store(provider, declared, folder / "cloud", servers)
            cloud.start()
            cloud.create(BUCKET)
            stack = Stack(declared, folder / "stack", running.enter_context(Processes(folder / "logs")))
            running.callback(stack.stop)
            running.callback(cloud.close)
            made[provider] = it = LongTerm(stack, cloud)
            stack.objstore = it.wrong
            it.write(0)
            stack.objstore = it.config
            assert it.blocks()
        yield made


@dataclass
class Alerts:
    """A stack that scrapes the ingestors, each as a job of its provider's name, and evaluates the baked alerts."""

    stack: Stack

    def fires(self, provider: str) -> bool:
        labels = f'alertname="ObjectStoreFails",alertstate="firing",job="{provider}"'
        return bool(self.stack.query.instant(f"ALERTS{{{labels}}}"))

    def quiet(self, provider: str) -> bool:
        return not self.fires(provider)

    def wait_told(
        self, every: dict[str, LongTerm], logs: Mapping[str, Callable[[], str]], errors: dict[str, str]
    ) -> None:
        """Wait until each ingestor has logged its error and counted it, and the alert on it fires."""
        for name, it in every.items():
            wait_until(partial(tells, logs[name], errors[name]), f"{name}: the log says what is wrong")
            wait_until(partial(it.metric, "ingestor", FAILURES), f"{name}: the failure is counted")
        for name in every:  # the shipper tries again every 30 s
            wait_until(partial(self.fires, name), f"{name}: the alert fires", timeout=90)

    def wait_quiet(self, every: dict[str, LongTerm]) -> None:
        for name in every:
            wait_until(partial(self.quiet, name), f"{name}: the alert clears")


def tells(log: Callable[[], str], error: str) -> bool:
    return bool(re.search(error, log()))


@pytest.fixture(scope="module")
def alerts(
    every: dict[str, LongTerm], new_stack: Callable[[], Stack], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Alerts]:
    watching = new_stack()
    rules(changed(watching.declared, tmp_path_factory.mktemp("rules"), WATCH), watching.data("rules"))

    def ingestors(config: dict[str, Any]) -> dict[str, Any]:
        scrape = every_second(config)["receivers"]["prometheus"]["config"]
        (baked,) = (job for job in scrape["scrape_configs"] if job["job_name"] == "thanos-receive-ingestor")
        scrape["scrape_configs"] = [
            {**baked, "job_name": name, "static_configs": [{"targets": [it.stack.address("ingestor")]}]}
            for name, it in every.items()
        ]
        return config

    def often(arguments: list[str]) -> list[str]:
        return replace_flags(arguments, {"--eval-interval": "1s"})

    watching.changes |= {"scraper": ingestors, "rule": often}
    watching.start("ingestor", "router", "query", "collector", "rule", "scraper")
    wait_until(lambda: watching.query.stores().keys() >= {"receive", "rule"}, "Query sees the ingestor and the Ruler")
    yield Alerts(watching)
    watching.stop()


def test_a_wrong_bucket_is_named_counted_told_and_loses_nothing(every: dict[str, LongTerm], alerts: Alerts) -> None:
    before = {name: it.blocks() for name, it in every.items()}
    with ExitStack() as running:
        logs = {name: running.enter_context(it.ingestor(config=it.wrong)) for name, it in every.items()}
        alerts.wait_told(every, logs, WRONG_BUCKET)
    alerts.wait_quiet(every)
    assert all(before[name] <= it.blocks() for name, it in every.items())


def test_a_refusal_is_named_counted_told_and_loses_nothing(every: dict[str, LongTerm], alerts: Alerts) -> None:
    before = {name: it.blocks() for name, it in every.items()}
    with ExitStack() as running:
        refused = {name: running.enter_context(it.cloud.refusing()) for name, it in every.items()}
        logs = {name: running.enter_context(it.ingestor(refused[name])) for name, it in every.items()}
        alerts.wait_told(every, logs, NO_PERMISSION)
    alerts.wait_quiet(every)
    assert all(before[name] <= it.blocks() for name, it in every.items())


@pytest.fixture(scope="module")
def survivors(every: dict[str, LongTerm], alerts: Alerts) -> dict[str, LongTerm]:
    """Take all stores away at the same time for a minute, give them back and wait until the blocks are there."""
    with ExitStack() as running:
        for it in every.values():
            it.cloud.stop()
        began = time.monotonic()
        logs = {name: running.enter_context(it.ingestor()) for name, it in every.items()}
        alerts.wait_told(every, logs, dict.fromkeys(every, AWAY_ERROR))
        wait_until(lambda: time.monotonic() > began + AWAY, "the minute is over", timeout=AWAY + 1)
        for it in every.values():
            assert it.metric("ingestor", "thanos_shipper_uploads_total") == 0
            it.cloud.start()
        for name, it in every.items():
            # The shipper tries again every 30 s.
            wait_until(it.is_uploaded, f"{name}: every block is uploaded", timeout=90)
        alerts.wait_quiet(every)  # while the ingestors run on: it is the store that answers again
    return every


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_bucket_that_was_away_gets_every_block(survivors: dict[str, LongTerm], provider: str) -> None:
    it = survivors[provider]
    assert it.blocks() <= it.bucket().keys()
    asked = it.cloud.proxy.asked
    assert asked, "the bake's address was never asked for"
    assert all(map(it.cloud.proxy.port, asked)), f"a name that nobody answers to: {sorted(asked)}"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_it_is_merged_downsampled_and_read_back_whole(survivors: dict[str, LongTerm], provider: str) -> None:
    it = survivors[provider]
    stack = it.stack
    it.write(1)
    it.write(2)
    arguments = [argument for argument in stack.thanos_arguments("compact") if argument != "--wait"]
    arguments += ["--consistency-delay=0s", "--delete-delay=0s"]  # the sources are deleted at once, not after two days
    for name in ("compact", "clean"):
        process = stack.processes.start(name, [toolchain.tool("thanos"), *arguments], env=stack.thanos_environment)
        assert process.wait_end(60) == 0, process.tail()
    kept = sorted(it.bucket().values())
    assert {resolution for _, resolution in kept} == {0, 300_000}, kept
    assert max(level for level, _ in kept) > 1, kept

    stack.start("store-gateway", "query")
    wait_until(lambda: stack.query.stores()["store"], "Query sees the Store Gateway")
    series = 'http_server_request_duration_seconds{http_response_status_code="200"}'
    end = it.start + RANGE - STEP
    (samples,) = stack.query.range(f"count_over_time({series}[2d])", end, end, 1, max_source_resolution="0s")
    assert float(samples["values"][0][1]) == RANGE / STEP
    window, at = 12 * 3600, it.start + RANGE // 2 + 6 * 3600  # over the seam of the first block and the second
    for resolution in ("0s", "5m"):
        (counted,) = stack.query.range(
            f"histogram_count(increase({series}[{window}s]))", at, at, 1, max_source_resolution=resolution
        )
        assert float(counted["values"][0][1]) == pytest.approx(window / STEP * PER_STEP, rel=0.01)
    stack.stop("store-gateway", "query")
