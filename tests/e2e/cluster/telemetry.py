"""What the platform keeps of the app's requests, asked through port-forwards as a person does."""

from __future__ import annotations

from dataclasses import dataclass, field

import httpx

from tests.e2e.cluster.platform import Platform
from tests.e2e.cluster.shoppers import newer
from tests.e2e.datapath.query import Exemplar, Thanos
from tests.e2e.datapath.served import Request
from tests.e2e.datapath.traffic import SERVED
from tests.e2e.processes import HTTP, wait_until

AT_ONCE = 100  # traces whose log lines one query asks for


@dataclass
class Telemetry:
    """The stores of a running platform, beside the app's own record of what it served."""

    platform: Platform
    lost: int = 0  # requests that died with a killed app, before it had told of them
    # The pod of each container of the app that ended and is started again, and when that was (Unix seconds).
    ended: list[tuple[str, float]] = field(default_factory=list)

    @property
    def thanos(self) -> Thanos:
        return Thanos(self.platform.url("thanos-query", 10902))

    def counted(self, since: float = 0) -> int:
        """Return how many requests Thanos knows of, those of every process of the app that began ``since``.

        A container that is started again counts from zero in the series of its pod, so each stretch between two ends counts.
        """
        total = 0.0
        for series in self.thanos.instant(f"{SERVED}[2h]"):
            pod = series["metric"]["instance"].split(".")[1]
            ends = [end for of, end in self.ended if of == pod and end > since]
            last = {}
            for at, histogram in series["histograms"]:
                last[sum(at > end for end in ends)] = float(histogram["count"]) if at > since else 0
            total += sum(last.values())
        return round(total)

    def exemplars(self, start: float, end: float) -> list[Exemplar]:
        """Return the exemplars of the request durations."""
        return self.thanos.exemplars("http_server_request_duration_seconds", start, end)

    def has_trace(self, trace_id: str, http: httpx.Client = HTTP) -> bool:
        return http.get(f"{self.platform.url('tempo', 3200)}/api/traces/{trace_id}").status_code == 200

    def lines(self, *trace_ids: str) -> set[tuple[str, str]]:
        """Return the app's log lines of some traces, each with its trace.

        Every Loki is asked, because the stand-ins keep no copies for each other.
        """
        query = {"query": f'{{service_name="checkout"}} | trace_id=~"{"|".join(trace_ids)}"', "limit": "1000"}
        answers = [HTTP.get(f"{url}/loki/api/v1/query_range", params=query) for url in self.platform.urls("loki", 3100)]
        streams = [stream for answer in answers for stream in answer.json()["data"]["result"]]
        return {(stream["stream"]["trace_id"], line) for stream in streams for _, line in stream["values"]}

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
        without_trace, without_line = list(told), list(told)

        def kept() -> bool:
            with httpx.Client(trust_env=False, timeout=30) as http:  # one connection for all of them
                without_trace[:] = [request for request in without_trace if not self.has_trace(request.trace_id, http)]
            assert not without_trace, f"{len(without_trace)} of {len(told)} have no trace: {without_trace[:3]}"
            lines: set[tuple[str, str]] = set()
            for first in range(0, len(without_line), AT_ONCE):
                some = without_line[first : first + AT_ONCE]
                lines |= self.lines(*(request.trace_id for request in some))
            without_line[:] = [request for request in without_line if (request.trace_id, request.line) not in lines]
            assert not without_line, f"{len(without_line)} of {len(told)} have no log line: {without_line[:3]}"
            return True

        wait_until(kept, "every trace and line is there", timeout, 1)

    def nothing_lost(self, before: list[Request], timeout: float = 120) -> list[Request]:
        """Wait until every request since a reading of the record is counted, traced and logged, and return them."""
        told = newer(self.settle(timeout), before)
        self.kept(told, timeout)
        return told
