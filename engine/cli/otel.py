"""The extra `otel`: one trace for each command, a span for each request, and metrics, by OTLP over HTTP.

Names are those of OpenTelemetry's semantic conventions where these have one (`http.client.request.duration`,
`http.request.method`, `process.exit.code`), else they begin with `promptferry.`. No attribute holds a key, a header, a
query or any text of a prompt. What cannot be sent is dropped, and said once in the log.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Histogram, Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from yarl import URL

from engine import __version__
from engine.errors import EXIT_OK
from engine.http.client import Leave, Send
from engine.http.responses import Answer, Request
from engine.http.session import OBSERVED
from engine.ledger.report import OUTCOMES
from engine.log import log

SERVICE: Final = "promptferry"
FLUSH_S: Final = 2.0
"""So long may the end of a command wait for a collector."""
BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Seconds; as the conventions advise for the duration of requests."""
NS: Final = 1_000_000_000


@dataclass(slots=True)
class Observation:
    """What is observed of one command."""

    span: trace.Span
    meter: Meter

    def told(self, summary: Mapping[str, Any]) -> None:
        """The summary of a run or of a fleet's."""
        runs = summary.get("migrations", [summary])
        name = summary.get("fleet") or summary.get("migration")
        self.span.set_attributes(
            {"promptferry.reason": summary["reason"], **({"promptferry.name": name} if name else {})}
        )
        if run := summary.get("run"):
            self.span.set_attributes({"promptferry.run.id": run, "promptferry.mode": summary["mode"]})
        for outcome in OUTCOMES:
            self.span.set_attribute(f"promptferry.prompts.{outcome}", summary["counts"][outcome])
        prompts = self.meter.create_counter("promptferry.prompts", "{prompt}", "What became of prompts in this run.")
        throttled = self.meter.create_counter(
            "promptferry.requests.throttled", "{request}", "Answers that asked for a pause."
        )
        for one in runs:
            named = {"promptferry.migration": one["migration"]}
            throttled.add(one["requests"]["throttled"], named)
            for outcome in OUTCOMES:
                prompts.add(one["this_run"][outcome], {**named, "promptferry.outcome": outcome})

    def ended(self, exit_code: int) -> None:
        """With this code."""
        self.span.set_attribute("process.exit.code", exit_code)
        self.span.set_status(Status(StatusCode.OK if exit_code == EXIT_OK else StatusCode.ERROR))


@contextmanager
def observed(command: str) -> Iterator[Observation]:
    """One command; what was observed has been sent, or given up, when the block ends."""
    lost = _Lost()
    quiet = logging.getLogger("opentelemetry")
    quiet.addHandler(lost)
    quiet.propagate = False
    resource = _resource()
    traces = TracerProvider(resource=resource, shutdown_on_exit=False)
    if _wanted("TRACES"):
        traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    readers: list[MetricReader] = [PeriodicExportingMetricReader(OTLPMetricExporter())] if _wanted("METRICS") else []
    metrics = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
    tracer = traces.get_tracer(SERVICE, __version__)
    meter = metrics.get_meter(SERVICE, __version__)
    around = propagate.extract({name: os.environ.get(name.upper(), "") for name in ("traceparent", "tracestate")})
    began = time.monotonic()
    try:
        with tracer.start_as_current_span(command, around, record_exception=False) as span:
            token = OBSERVED.set(_Requests(tracer, _durations(meter)))
            try:
                yield Observation(span, meter)
            finally:
                OBSERVED.reset(token)
        seconds = meter.create_histogram("promptferry.command.duration", "s", "How long a command took.")
        seconds.record(time.monotonic() - began, {"promptferry.command": command})
    finally:
        _flush(traces, metrics)
        quiet.removeHandler(lost)
        lost.tell()


def _resource() -> Resource:
    """As the variables say; its name is ours where they give none."""
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = {} if named else {"service.name": SERVICE}
    return Resource.create({**own, "service.version": __version__})


def _wanted(signal: str) -> bool:
    """By the exporter that the variables name; we have only this one, and speak it only over HTTP with protobuf."""
    exporter = os.environ.get(f"OTEL_{signal}_EXPORTER") or "otlp"
    there = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{one}ENDPOINT", "").strip() for one in ("", f"{signal}_"))
    protocol = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if (spoken := protocol or "http/protobuf") != "http/protobuf":
        log.warning("telemetry.unavailable", why=f"OTLP goes by http/protobuf here, and {spoken} is asked for")
        return False
    return there and "otlp" in exporter.split(",")


def _flush(traces: TracerProvider, metrics: MeterProvider) -> None:
    """In threads that nobody waits for longer: the exporters themselves would try for tens of seconds."""
    threads = [threading.Thread(target=one.shutdown, daemon=True) for one in (traces, metrics)]
    deadline = time.monotonic() + FLUSH_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


class _Lost(logging.Handler):
    """Keeps what OpenTelemetry has to say away from stderr: one line of ours stands for all of it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._any = False

    def emit(self, record: logging.LogRecord) -> None:
        """Its text may hold an address with a password."""
        self._any = True

    def tell(self) -> None:
        """Once."""
        if self._any:
            log.warning(
                "telemetry.lost", why="not all could be sent to the collector; the command itself is not concerned"
            )


# ---- requests --------------------------------------------------------------------------------------------------------


def _durations(meter: Meter) -> Histogram:
    about = "Duration of HTTP client requests."
    return meter.create_histogram(
        "http.client.request.duration", "s", about, explicit_bucket_boundaries_advisory=BOUNDS
    )


@dataclass(frozen=True, slots=True)
class _Requests:
    """A span and a duration for each request, from the moment it leaves: what it waits for the gate is not its own."""

    tracer: Tracer
    durations: Histogram

    def __call__(self, send: Send) -> Send:
        async def sending(request: Request, headers: Mapping[str, str], leave: Leave) -> Answer:
            left = time.time_ns()

            async def leaving() -> bool:
                nonlocal left
                allowed = await leave()
                left = time.time_ns()
                return allowed

            answer = await send(request, headers, leaving)
            if not answer.held:
                self._record(request, answer, left, time.time_ns())
            return answer

        return sending

    def _record(self, request: Request, answer: Answer, left: int, ended: int) -> None:
        url = URL(request.url, encoded=True)
        kept: dict[str, str | int] = {
            "http.request.method": request.method,
            "server.address": url.host or "",
            "server.port": url.port or 0,
        }
        if answer.status is not None:
            kept["http.response.status_code"] = answer.status
        failed = answer.fault or answer.status is None or answer.status >= 400
        if failed:
            kept["error.type"] = _error_type(answer)
        self.durations.record((ended - left) / NS, kept)
        where = str(url.with_query(None).with_fragment(None).with_user(None))
        attributes = {**kept, "url.full": where, "promptferry.call": request.call}
        span = self.tracer.start_span(request.method, kind=SpanKind.CLIENT, attributes=attributes, start_time=left)
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)


def _error_type(answer: Answer) -> str:
    if answer.timed_out:
        return "timeout"
    return str(answer.status) if answer.status is not None and answer.status >= 400 else "connection"
