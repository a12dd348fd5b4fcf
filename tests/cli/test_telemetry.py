"""The extra `otel`: what a collector gets, and that nothing about it can fail or hold up a command."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from engine.sandbox import SandboxOptions
from tests.e2e import Ended, Served, promptferry, served, write_migration
from tests.forks import PATIENCE_S, environment

PROMPTS = 6
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@dataclass
class Collector:
    """What came in, by path."""

    url: str = ""
    bodies: dict[str, list[bytes]] = field(default_factory=lambda: {"/v1/traces": [], "/v1/metrics": []})
    answers: threading.Event = field(default_factory=threading.Event)
    """Not set: it takes what comes and says nothing."""

    def spans(self) -> list[Any]:
        found = [ExportTraceServiceRequest.FromString(body) for body in self.bodies["/v1/traces"]]
        return [
            span for one in found for part in one.resource_spans for scope in part.scope_spans for span in scope.spans
        ]

    def metrics(self) -> dict[str, Any]:
        found = [ExportMetricsServiceRequest.FromString(body) for body in self.bodies["/v1/metrics"]]
        parts = [part for one in found for part in one.resource_metrics]
        return {metric.name: metric for part in parts for scope in part.scope_metrics for metric in scope.metrics}

    def services(self) -> set[str]:
        found = [ExportTraceServiceRequest.FromString(body) for body in self.bodies["/v1/traces"]]
        return {values(part.resource.attributes)["service.name"] for one in found for part in one.resource_spans}


def values(attributes: Iterator[KeyValue] | Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in attributes}


@contextmanager
def collecting(*, silent: bool = False) -> Iterator[Collector]:
    found = Collector()
    if not silent:
        found.answers.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            zipped = self.headers.get("Content-Encoding") == "gzip"
            found.bodies[self.path].append(gzip.decompress(body) if zipped else body)
            found.answers.wait()
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_arguments: Any) -> None:
            pass  # whoever asked has gone

    with Server(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield found
        finally:
            found.answers.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=PROMPTS)) as found:
        yield found


def run(folder: Path, registry: Served, **env: str) -> Ended:
    path = write_migration(folder, registry.base_url, name="m")
    return promptferry("run", path, cwd=folder, env={"KEY": registry.api_key, **env})


def events(ended: Ended) -> Counter[str]:
    return Counter(json.loads(line)["event"] for line in ended.err.splitlines())


def test_a_trace_and_metrics_of_a_run(tmp_path: Path, registry: Served) -> None:
    with collecting() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "TRACEPARENT": f"00-{TRACE}-{PARENT}-01"}
        ended = run(tmp_path, registry, **env, OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
    assert ended.code == 0, ended.err
    summary, spans, metrics = ended.summary, collector.spans(), collector.metrics()
    total = summary["requests"]["total"]

    (root,) = (span for span in spans if span.name == "promptferry run")
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, PARENT)
    told = values(root.attributes)
    assert told["promptferry.run.id"] == summary["run"]
    assert (told["process.exit.code"], told["promptferry.reason"], told["promptferry.prompts.created"]) == (
        0,
        "done",
        6,
    )

    requests = [span for span in spans if span is not root]
    assert len(requests) == total
    assert {(span.trace_id, span.parent_span_id) for span in requests} == {(root.trace_id, root.span_id)}
    assert {span.name for span in requests} == {"GET", "POST", "PUT"}
    assert {values(span.attributes)["promptferry.call"] for span in requests} >= {"retrieve", "create"}
    assert all(root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano for span in requests)
    urls = {values(span.attributes)["url.full"] for span in requests}
    assert all(url.startswith(registry.base_url) and "?" not in url for url in urls)

    points = metrics["http.client.request.duration"].histogram.data_points
    assert sum(point.count for point in points) == total
    assert {values(point.attributes)["http.response.status_code"] for point in points} == {200}
    prompts = metrics["promptferry.prompts"].sum.data_points
    became = {values(point.attributes)["promptferry.outcome"]: point.as_int for point in prompts}
    assert became == summary["this_run"]
    assert (metrics["promptferry.prompts"].unit, collector.services()) == ("{prompt}", {"promptferry"})

    everything = b"".join(body for bodies in collector.bodies.values() for body in bodies)
    assert registry.api_key.encode() not in everything
    for prompt in registry.prompts():
        assert prompt["string"].encode() not in everything


def test_a_refused_request_and_a_failed_command_are_errors(tmp_path: Path, registry: Served) -> None:
    with collecting() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "nightly"}
        ended = run(tmp_path, registry, **env, KEY="wrong")
    assert ended.code == 4
    (root, *_), refused = [
        [one for one in collector.spans() if (one.name[0] == "p") is wanted] for wanted in (True, False)
    ]
    assert (values(root.attributes)["process.exit.code"], root.status.code) == (4, 2)
    assert {values(span.attributes)["error.type"] for span in refused} == {"401"}
    assert collector.services() == {"nightly"}


def test_a_collector_that_says_nothing_holds_nothing_up(tmp_path: Path, registry: Served) -> None:
    with collecting(silent=True) as collector:
        ended = run(tmp_path, registry, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        assert not collector.answers.is_set()
    assert (ended.code, ended.summary["this_run"]["created"]) == (0, PROMPTS)


def test_a_collector_that_is_not_there_is_said_once(tmp_path: Path, registry: Served) -> None:
    with collecting() as gone:
        pass
    ended = run(tmp_path, registry, OTEL_EXPORTER_OTLP_ENDPOINT=gone.url)
    assert (ended.code, ended.summary["this_run"]["created"]) == (0, PROMPTS)
    assert events(ended)["telemetry.lost"] == 1


@pytest.mark.parametrize(
    "off",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_it_can_be_turned_off(off: dict[str, str], tmp_path: Path) -> None:
    with collecting() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **off}
        ended = promptferry("schema", "--log-format", "json", cwd=tmp_path, env=env)
    assert (ended.code, collector.spans(), collector.metrics()) == (0, [], {})
    assert ("telemetry.unavailable" in events(ended)) is ("grpc" in off.values())


LOADED = """
import sys
from engine.cli import main
try:
    main()
finally:
    print([name for name in sys.modules if name.startswith("opentelemetry")], file=sys.stderr)
"""


def imported(*arguments: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The command in a Python of its own, which says at its end what of OpenTelemetry it has imported."""
    command = [sys.executable, "-c", LOADED, *map(str, arguments)]
    return subprocess.run(command, env=environment(**env), capture_output=True, text=True, timeout=PATIENCE_S)


def test_nothing_of_it_is_imported_unless_it_is_asked_for() -> None:
    process = imported("schema", env={})
    assert (process.returncode, process.stderr.splitlines()[-1]) == (0, "[]")


def test_without_the_extra_the_log_names_it(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("raise ImportError('not here')")
    paths = f"{tmp_path}:{environment()['PYTHONPATH']}"
    env = {"PYTHONPATH": paths, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    process = imported("schema", env=env)
    said = json.loads(process.stderr.splitlines()[0])
    assert (process.returncode, said["event"]) == (0, "telemetry.unavailable")
    assert "promptferry[otel]" in said["why"]


@pytest.mark.parametrize(
    "wrong", [{"OTEL_PROPAGATORS": "bogus"}, {"OTEL_ATTRIBUTE_COUNT_LIMIT": "-1"}, {"OTEL_BSP_MAX_QUEUE_SIZE": "1"}]
)
def test_variables_that_opentelemetry_refuses_fail_no_command(wrong: dict[str, str]) -> None:
    process = imported("schema", env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", **wrong})
    said = json.loads(process.stderr.splitlines()[0])
    assert (process.returncode, said["event"], said["level"]) == (0, "telemetry.unavailable", "warning")
    assert process.stdout.startswith("{")
