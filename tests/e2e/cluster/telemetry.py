"""What the platform keeps of the app's requests, asked through port-forwards as a person does."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.e2e.cluster.platform import Platform
from tests.e2e.cluster.shoppers import newer
from tests.e2e.datapath.query import Exemplar, Thanos
from tests.e2e.datapath.served import Request
from tests.e2e.datapath.traffic import SERVED
from tests.e2e.processes import HTTP, wait_until


@dataclass
class Telemetry:
    """The stores of a running platform, beside the app's own record of what it served."""

    platform: Platform
    lost: int = 0  # requests that died with a killed app, before it had told of them
    ended: list[float] = field(default_factory=list)  # when a container of the app ended that is started again (Unix)

    @property
    def thanos(self) -> Thanos:
        return Thanos(self.platform.url("thanos-query", 10902))

    def counted(self, since: float = 0) -> int:
        """Return how many requests Thanos knows of, those of every process of the app that began ``since``.

        A container that is started again counts from zero in the series of its pod, so each stretch between two ends counts.
        """
        ends = [end for end in self.ended if end > since]
        total = 0.0
        for series in self.thanos.instant(f"{SERVED}[2h]"):
            last = {}
            for at, histogram in series["histograms"]:
                last[sum(at > end for end in ends)] = float(histogram["count"]) if at > since else 0
            total += sum(last.values())
        return round(total)

    def exemplars(self, start: float, end: float) -> list[Exemplar]:
        """Return the exemplars of the request durations."""
        return self.thanos.exemplars("http_server_request_duration_seconds", start, end)

    def has_trace(self, trace_id: str) -> bool:
        return HTTP.get(f"{self.platform.url('tempo', 3200)}/api/traces/{trace_id}").status_code == 200

    def lines(self, trace_id: str) -> list[str]:
        """Return the app's log lines of a trace."""
        query = {"query": f'{{service_name="checkout"}} | trace_id="{trace_id}"'}
        answer = HTTP.get(f"{self.platform.url('loki', 3100)}/loki/api/v1/query_range", params=query)
        return [line for stream in answer.json()["data"]["result"] for _, line in stream["values"]]

    def settle(self, timeout: float = 120) -> list[Request]:
        """Wait until Thanos counts exactly the requests that the app's log tells of, and return these.

        Raises:
            NotReady: it does not come to that, because some were lost or counted twice, or somebody still shops.
        """

        def settled() -> list[Request]:
            told, counted = self.platform.record.requests(), self.counted()
            assert counted == len(told) - self.lost, (
                f"Thanos counts {counted} requests, the app tells of {len(told)} and lost {self.lost}"
            )
            return told

        return wait_until(settled, "counts are exact", timeout, 1)

    def kept(self, told: list[Request], timeout: float = 120) -> None:
        """Wait until each of these requests has its trace and its log line.

        Raises:
            NotReady: some have not.
        """

        def kept() -> bool:
            traces = [request for request in told if not self.has_trace(request.trace_id)]
            assert not traces, f"{len(traces)} of {len(told)} requests have no trace: {traces[:3]}"
            lines = [request for request in told if request.line not in self.lines(request.trace_id)]
            assert not lines, f"{len(lines)} of {len(told)} requests have no log line: {lines[:3]}"
            return True

        wait_until(kept, "every trace and line is there", timeout, 1)

    def nothing_lost(self, before: list[Request], timeout: float = 120) -> list[Request]:
        """Wait until every request since a reading of the record is counted, traced and logged, and return them."""
        told = newer(self.settle(timeout), before)
        self.kept(told, timeout)
        return told
