"""The baked long-term storage on S3, GCS and Azure Blob by their own APIs: what it says when the bucket fails, and that it
loses nothing.

The configurations are the bake's, unchanged; see `tests/e2e/clouds.py` for what is substituted. Time alone is compressed:
two days of back-dated samples, blocks cut by an orderly end, a Compactor that waits for nothing and ends by itself.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.e2e import toolchain
from tests.e2e.clouds import OWNER, S3, Azure, Cloud, Gcs, azurite_is_missing
from tests.e2e.datapath.bench.synthetic import Service, request
from tests.e2e.datapath.declared import Declared, replace_flags, substitute
from tests.e2e.datapath.stack import Stack
from tests.e2e.processes import HTTP, Processes, wait_until

BUCKET, REGION, ACCOUNT = "acme-platform-blocks", "eu-central-1", "acmeplatform"
ANSWERS = {
    "s3": {"object_storage_location": REGION},
    "gcs": {},
    "azure": {"object_storage_location": ACCOUNT},
}
AWAY = 60  # seconds
# The Compactor merges what fills its range of two days, aligned, once there is a block after it, and makes 5-minute points
# of blocks of at least 40 hours.
RANGE, AFTER, STEP = 2 * 86400, 4 * 3600, 120
SEGMENTS = (0, RANGE // 2, RANGE, RANGE + AFTER)
PER_STEP = 3  # observations of each of the two statuses
FAILURES = "thanos_objstore_bucket_operation_failures_total"  # what the alert on the object store counts
WRONG_BUCKET = {
    "s3": "The specified bucket does not exist",
    "gcs": "googleapi: Error 404: Not Found",
    "azure": "ERROR CODE: ContainerNotFound",
}
NO_PERMISSION = {
    "s3": "Access Denied",
    "gcs": "Error 403: .* does not have storage.objects.list access to the Google Cloud Storage bucket",
    "azure": "ERROR CODE: AuthenticationFailed",
}
AWAY_ERROR = "connection reset by peer"

PROVIDERS = [
    "s3",
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


def store(provider: str, folder: Path, servers: Processes) -> Cloud:
    if provider == "s3":  # Thanos' client takes the dual-stack name of the region.
        return S3(folder, servers, REGION, f"s3.dualstack.{REGION}.amazonaws.com")
    return Gcs(folder, servers) if provider == "gcs" else Azure(folder, servers, ACCOUNT)


@pytest.fixture(scope="module")
def make(baked: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], LongTerm]]:
    """Return ``make(provider)``: long-term storage with a first block that is not uploaded yet."""
    made: dict[str, LongTerm] = {}
    with ExitStack() as running:
        servers = running.enter_context(Processes(tmp_path_factory.mktemp("clouds") / "logs"))

        def get(provider: str) -> LongTerm:
            if provider not in made:
                folder = tmp_path_factory.mktemp(provider)
                platform = baked(object_storage=provider, object_storage_bucket=BUCKET, **ANSWERS[provider])
                cloud = store(provider, folder / "cloud", servers)
                cloud.start()
                cloud.create(BUCKET)
                stack = Stack(Declared(platform), folder / "stack", running.enter_context(Processes(folder / "logs")))
                running.callback(stack.stop)
                running.callback(cloud.close)
                made[provider] = it = LongTerm(stack, cloud)
                stack.objstore = it.wrong
                it.write(0)
                stack.objstore = it.config
                assert it.blocks()
            return made[provider]

        yield get


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_wrong_bucket_is_named_counted_and_loses_nothing(make: Callable[[str], LongTerm], provider: str) -> None:
    it = make(provider)
    before = it.blocks()
    with it.ingestor(config=it.wrong) as log:
        wait_until(lambda: re.search(WRONG_BUCKET[provider], log()), "the error names the bucket")
        wait_until(lambda: it.metric("ingestor", FAILURES), "the failure is counted")
    assert before <= it.blocks()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_refusal_is_told_counted_and_loses_nothing(make: Callable[[str], LongTerm], provider: str) -> None:
    it = make(provider)
    before = it.blocks()
    with it.cloud.refusing() as who, it.ingestor(who) as log:
        wait_until(lambda: re.search(NO_PERMISSION[provider], log()), "the error tells of the refusal")
        wait_until(lambda: it.metric("ingestor", FAILURES), "the failure is counted")
    assert before <= it.blocks()


def tells_of_it(log: Callable[[], str]) -> bool:
    return AWAY_ERROR in log()


@pytest.fixture(scope="module")
def survivors(make: Callable[[str], LongTerm]) -> dict[str, LongTerm]:
    """Take all three stores away at the same time for a minute, give them back and wait until the blocks are there."""
    them = {name: make(name) for name in ANSWERS if name != "azure" or not azurite_is_missing()}
    with ExitStack() as running:
        for it in them.values():
            it.cloud.stop()
        began = time.monotonic()
        logs = {name: running.enter_context(it.ingestor()) for name, it in them.items()}
        for name, it in them.items():
            wait_until(partial(tells_of_it, logs[name]), f"{name}: the error tells that the store is away")
            wait_until(partial(it.metric, "ingestor", FAILURES), f"{name}: the failure is counted")
        wait_until(lambda: time.monotonic() > began + AWAY, "the minute is over", timeout=AWAY + 1)
        for it in them.values():
            assert it.metric("ingestor", "thanos_shipper_uploads_total") == 0
            it.cloud.start()
        for name, it in them.items():
            # The shipper tries again every 30 s.
            wait_until(it.is_uploaded, f"{name}: every block is uploaded", timeout=90)
    return them


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
