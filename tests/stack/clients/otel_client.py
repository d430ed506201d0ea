"""OpenTelemetry's SDK with its OTLP/HTTP exporters, configured by environment variables alone.

The third argument is the encoding, `proto` or `json`; a fourth the compression.
"""

import importlib
import logging
import os
import sys

from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

host, key, encoding, *compression = sys.argv[1:]
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = host
os.environ["OTEL_EXPORTER_OTLP_HEADERS"] = f"authorization=Bearer%20{key}"
os.environ["OTEL_EXPORTER_OTLP_COMPRESSION"] = (compression or ["none"])[0]
os.environ["OTEL_EXPORTER_OTLP_TIMEOUT"] = "60"
exporters = f"opentelemetry.exporter.otlp.{encoding}.http"
resource = Resource.create({"service.name": "cart", "host.name": "web-1"})

traces = TracerProvider(resource=resource)
traces.add_span_processor(BatchSpanProcessor(importlib.import_module(f"{exporters}.trace_exporter").OTLPSpanExporter()))
tracer = traces.get_tracer("shop")
with tracer.start_as_current_span("POST /checkout", kind=SpanKind.SERVER) as span:
    span.set_status(Status(StatusCode.ERROR, "card declined"))
    gen_ai = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5-mini",
        "gen_ai.response.model": "gpt-5-mini-2026-08-01",
        "gen_ai.usage.input_tokens": 420,
        "gen_ai.usage.output_tokens": 80,
    }
    tracer.start_span("chat gpt-5-mini", kind=SpanKind.CLIENT, attributes=gen_ai).end()

logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(
    SimpleLogRecordProcessor(importlib.import_module(f"{exporters}._log_exporter").OTLPLogExporter())
)
logger = logging.getLogger("shop")
logger.propagate = False
logger.addHandler(LoggingHandler(logger_provider=logs))
logger.error("payment %s failed", 7, extra={"order": "o-1"})

exporter = importlib.import_module(f"{exporters}.metric_exporter").OTLPMetricExporter()
metrics = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=60_000)], resource=resource)
meter = metrics.get_meter("shop")
meter.create_counter("orders").add(3, {"region": "eu"})
meter.create_histogram("latency", unit="ms").record(12.5, {"region": "eu"})

assert traces.force_flush(60_000)
assert logs.force_flush(60_000)
for provider in (traces, logs, metrics):  # which sends what was measured
    provider.shutdown()
