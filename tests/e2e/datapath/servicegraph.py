"""What Tempo's metrics generator makes of the stand-in's spans: the service graph, by remote write into Receive.

Names and labels are those of Tempo's documentation (processor ``service-graphs``): an edge is a server span and the client
span that it is the child of; a server span without a parent is called by ``user``, a virtual node.
"""

from __future__ import annotations

import struct
from collections import defaultdict

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.e2e.datapath.stores import TraceStore, attributes
from tests.e2e.processes import HTTP

PREFIX = "traces_service_graph_request"
Labels = tuple[tuple[str, str], ...]


def series_of(traces: TraceStore) -> dict[Labels, float]:
    """Return Tempo's counters for all spans of a store, by their labels."""
    counters: dict[Labels, float] = defaultdict(float)
    for spans in traces.content():
        services = {span.span_id: attributes(resource.attributes)["service.name"] for resource, span in spans}
        clients = {span.span_id for _, span in spans if span.kind == Span.SPAN_KIND_CLIENT}
        for _, span in spans:
            if span.kind != Span.SPAN_KIND_SERVER or (span.parent_span_id and span.parent_span_id not in clients):
                continue
            client = services.get(span.parent_span_id, "user")
            edge = {
                "client": client,
                "server": services[span.span_id],
                "connection_type": "" if span.parent_span_id else "virtual_node",
            }

            def add(name: str, value: float, edge: dict[str, str] = edge) -> None:
                labels = {"__name__": f"{PREFIX}_{name}", "source": "tempo", **edge}
                counters[tuple(sorted((key, each) for key, each in labels.items() if each))] += value

            add("total", 1)
            if span.status.code == Status.STATUS_CODE_ERROR:
                add("failed_total", 1)
            add("server_seconds_count", 1)
            add("server_seconds_sum", (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9)
    return counters


def push(url: str, series: dict[Labels, float], time: float) -> None:
    """Write one sample of each series, at ``time`` (Unix seconds), to a remote-write endpoint."""
    body = b"".join(
        _field(
            1,
            b"".join(_field(1, _field(1, name.encode()) + _field(2, value.encode())) for name, value in labels)
            + _field(2, b"\x09" + struct.pack("<d", number) + b"\x10" + _varint(round(time * 1000))),
        )
        for labels, number in series.items()
    )
    headers = {
        "Content-Encoding": "snappy",
        "Content-Type": "application/x-protobuf",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    }
    HTTP.post(url, content=_snappy(body), headers=headers).raise_for_status()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, content: bytes) -> bytes:
    """Return a length-delimited protobuf field."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _snappy(content: bytes) -> bytes:
    """Return a snappy block that compresses nothing: literals of at most 60 bytes, whose length fits into their tag."""
    literals = (content[at : at + 60] for at in range(0, len(content), 60))
    return _varint(len(content)) + b"".join(bytes([len(each) - 1 << 2]) + each for each in literals)
