"""Real Tempo and Loki in the stand-ins' place: which program, with what, and how it starts and ends.

Neither is built here (AGPL). The charts' configuration is put together and checked, and a program that reads it as they do
(``-config.file``) and serves their ``/ready`` stands for them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e.datapath import declared as reading
from tests.e2e.datapath.backends import VARIABLES, BackendError, Loki, Tempo, binary, replace_ports
from tests.e2e.datapath.declared import UPSTREAM_CHARTS, NothingReplaced
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.stores import LogStore, TraceStore
from tests.e2e.processes import HTTP

needs_charts = pytest.mark.skipif(not UPSTREAM_CHARTS, reason="UPSTREAM_CHARTS names no folder of packaged charts")

PROGRAM = """#!{python}
import http.server, pathlib, sys, yaml
flags = dict(argument.split("=", 1) for argument in sys.argv[1:])
server = yaml.safe_load(pathlib.Path(flags["-config.file"]).read_text())["server"]

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()

http.server.HTTPServer((server["http_listen_address"], server["http_listen_port"]), Ready).serve_forever()
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    return path


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, program: Path, new_stack: Callable[[], Stack]) -> Stack:
    """A stack that is not started, made while both variables name a program."""
    for variable in VARIABLES.values():
        monkeypatch.setenv(variable, str(program))
    return new_stack()


def backend_of(stack: Stack, component: str) -> Tempo | Loki:
    backend = stack.traces if component == "tempo" else stack.logs
    assert isinstance(backend, Tempo | Loki)
    return backend


@pytest.mark.parametrize("component", VARIABLES)
def test_without_the_variable_it_is_the_stand_in(
    component: str, monkeypatch: pytest.MonkeyPatch, new_stack: Callable[[], Stack]
) -> None:
    monkeypatch.delenv(VARIABLES[component], raising=False)
    assert binary(component) is None
    assert isinstance(new_stack().traces if component == "tempo" else new_stack().logs, TraceStore | LogStore)


@pytest.mark.parametrize("component", VARIABLES)
def test_without_the_charts_it_says_what_is_needed(
    component: str, monkeypatch: pytest.MonkeyPatch, program: Path
) -> None:
    monkeypatch.setenv(VARIABLES[component], str(program))
    monkeypatch.setattr(reading, "UPSTREAM_CHARTS", None)
    with pytest.raises(BackendError, match=rf"{VARIABLES[component]} is set, but UPSTREAM_CHARTS is not"):
        binary(component)


def test_what_cannot_be_run_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOKI_BIN", str(tmp_path))
    with pytest.raises(BackendError, match="is not a program"):
        binary("loki")


def test_a_port_that_is_not_there_fails() -> None:
    config = {"server": {"port": 1, "name": "x"}}
    assert replace_ports(config, {"server.port": 2}) == {"server": {"port": 2, "name": "x"}}
    for path in ("server.name", "server.other", "client.port"):
        with pytest.raises(NothingReplaced, match=path):
            replace_ports(config, {path: 2})


def changes(before: object, after: object, path: str = "") -> dict[str, tuple[object, object]]:
    """Return what differs between two configurations, by dotted path."""
    before = {} if before is None and isinstance(after, dict) else before
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return {k: v for key in keys for k, v in changes(before.get(key), after.get(key), f"{path}.{key}").items()}
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return {k: v for number, pair in pairs for k, v in changes(*pair, f"{path}.{number}").items()}
    return {} if before == after else {path: (before, after)}


@needs_charts
@pytest.mark.parametrize("component", VARIABLES)
def test_only_addresses_and_paths_are_replaced(component: str, named: Stack) -> None:
    backend = backend_of(named, component)
    program, *arguments = backend.command()
    assert program == backend.path
    documents = reading.Declared(named.declared.platform, "local").render(component, UPSTREAM_CHARTS)
    baked = {name: text for d in documents if d["kind"] == "ConfigMap" for name, text in d["data"].items()}
    written = yaml.safe_load((named.data(component) / backend.main_file).read_text())
    for path, (_, after) in changes(yaml.safe_load(baked[backend.main_file]), written).items():
        key = path.rsplit(".", 2)[-2 if path.rsplit(".", 1)[-1].isdigit() else -1]
        assert isinstance(after, int) or "127.0.0.1" in str(after) or str(named.folder) in str(after), path
        words = ("addr", "port", "path", "file", "dir", "config", "url", "endpoint", "members", "wal")
        assert any(word in key for word in words), f"{path} is neither an address nor a path"
    assert f"-config.file={named.data(component) / backend.main_file}" in arguments
    assert "$(" not in " ".join(arguments)
    assert written["server"]["http_listen_port"] == backend.port


@needs_charts
def test_retention_and_trace_id_label_are_the_baked_ones(named: Stack) -> None:
    written = {}
    for component in VARIABLES:
        backend = backend_of(named, component)
        backend.command()
        written[component] = yaml.safe_load((named.data(component) / backend.main_file).read_text())
    tempo, loki = written["tempo"], written["loki"]
    assert tempo["compactor"]["compaction"]["block_retention"].endswith("h")
    assert tempo["overrides"]["defaults"]["metrics_generator"]["trace_id_label_name"] == "trace_id"
    assert named.address("router", "write") in tempo["metrics_generator"]["storage"]["remote_write"][0]["url"]
    assert loki["limits_config"]["retention_period"].endswith("h")


@needs_charts
@pytest.mark.parametrize("component", VARIABLES)
def test_a_configuration_without_what_is_replaced_fails(component: str, named: Stack) -> None:
    backend = backend_of(named, component)
    with pytest.raises(NothingReplaced, match="nothing to replace"):
        backend.configuration({backend.main_file: "server: {http_listen_port: 1, grpc_listen_port: 2}"})


@needs_charts
def test_the_collector_sends_to_the_programs(named: Stack) -> None:
    exporters = named.collector_config()["exporters"]
    assert exporters["otlp_grpc/tempo"]["endpoint"] == f"127.0.0.1:{named.traces.grpc_port}"
    assert exporters["otlp_http/loki"]["endpoint"] == f"http://127.0.0.1:{named.logs.port}/otlp"
    assert named.url("tempo") == named.traces.url
    jobs = named.scraper_config()["receivers"]["prometheus"]["config"]["scrape_configs"]
    scraped = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    assert scraped["tempo"] == [f"127.0.0.1:{named.traces.port}"]
    assert scraped["loki"] == [f"127.0.0.1:{named.logs.port}"]


@needs_charts
@pytest.mark.parametrize("component", VARIABLES)
def test_the_program_is_started_and_stopped(component: str, named: Stack) -> None:
    backend = backend_of(named, component)
    for _ in range(2):
        backend.start()
        assert HTTP.get(f"{backend.url}/ready").status_code == 200
        backend.stop()
        with pytest.raises(httpx.ConnectError):
            HTTP.get(f"{backend.url}/ready")


def test_each_variable_has_its_program(
    monkeypatch: pytest.MonkeyPatch, program: Path, new_stack: Callable[[], Stack]
) -> None:
    monkeypatch.setattr(reading, "UPSTREAM_CHARTS", "charts")
    monkeypatch.setenv("TEMPO_BIN", str(program))
    monkeypatch.delenv("LOKI_BIN", raising=False)
    stack = new_stack()
    assert isinstance(stack.traces, Tempo)
    assert isinstance(stack.logs, LogStore)
