"""A receiver of OTLP over HTTP on a loopback port, which reads with OpenTelemetry's own classes.

Whatever is sent is judged: the protocol's required fields, fields its definition does not have, and
names of GenAI that the conventions do not have. GET /told gives everything as JSON, with what is
wrong under `wrong`; GET /holds?TEXT says whether TEXT was in any body; POST /answer/STATUS makes
every later answer that status.
"""

import json
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.schemas import Schemas

KINDS = {
    "/v1/traces": (traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse),
    "/v1/metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
    "/v1/logs": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse),
}
# What the packages of this version of the conventions know.
NAMES = {
    value
    for module in (gen_ai_attributes, gen_ai_metrics)
    for name, value in vars(module).items()
    if name.startswith("GEN_AI_") and isinstance(value, str)
}
RETIRED = {"gen_ai.system", "gen_ai.prompt", "gen_ai.completion"}
SCHEMAS = {schema.value for schema in Schemas}
CONTENT = {"gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"}

lock = threading.Lock()
told = {"spans": [], "metrics": {}, "logs": [], "resources": [], "headers": [], "wrong": []}
bodies = []
answer = {"status": 200}


def wrong(what):
    told["wrong"].append(what)


def unknown(message):
    """Fields that the protocol's definition does not have."""
    if len(UnknownFieldSet(message)):
        wrong(f"{message.DESCRIPTOR.name} has a field of no name")
    for field, value in message.ListFields():
        if field.message_type:
            repeated = hasattr(value, "append") or hasattr(value, "add")
            for one in value if repeated else [value]:
                unknown(one)


def plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


def attributes(pairs, of):
    read = {}
    for pair in pairs:
        if not pair.key or pair.key in read:
            wrong(f"{of}: attribute '{pair.key}' is empty or there twice")
        if pair.key.startswith("gen_ai.") and pair.key not in NAMES - RETIRED - CONTENT:
            wrong(f"{of}: the conventions have no '{pair.key}' without content")
        read[pair.key] = plain(pair.value)
        if read[pair.key] is None:
            wrong(f"{of}: attribute '{pair.key}' has no value")
    return read


def origin(one, scope):
    resource = attributes(one.resource.attributes, "the resource")
    for needed in ("service.name", "service.version", "service.instance.id"):
        if not resource.get(needed):
            wrong(f"the resource lacks {needed}")
    for schema in (one.schema_url, scope.schema_url):
        if schema not in SCHEMAS or not schema.endswith("/1.41.1"):
            wrong(f"'{schema}' is not the schema that was promised")
    if not scope.scope.name:
        wrong("a scope has no name")
    if resource not in told["resources"]:
        told["resources"].append(resource)
    return resource["service.instance.id"]


def read_traces(message):
    for one in message.resource_spans:
        for scope in one.scope_spans:
            instance = origin(one, scope)
            for span in scope.spans:
                if len(span.trace_id) != 16 or len(span.span_id) != 8:
                    wrong(f"span '{span.name}' has malformed ids")
                if not any(span.trace_id) or not any(span.span_id):
                    wrong(f"span '{span.name}' has an id of zeros")
                if len(span.parent_span_id) not in (0, 8):
                    wrong(f"span '{span.name}' has a malformed parent")
                if not 0 < span.start_time_unix_nano <= span.end_time_unix_nano:
                    wrong(f"span '{span.name}' ends before it begins")
                if not span.name or span.kind == Span.SPAN_KIND_UNSPECIFIED:
                    wrong(f"span '{span.name}' has no name or kind")
                told["spans"].append({
                    "instance": instance,
                    "trace": span.trace_id.hex(),
                    "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "state": span.trace_state,
                    "name": span.name,
                    "kind": Span.SpanKind.Name(span.kind),
                    "status": span.status.code,
                    "flags": span.flags,
                    "nanos": span.end_time_unix_nano - span.start_time_unix_nano,
                    "events": [event.name for event in span.events],
                    "attributes": attributes(span.attributes, f"span '{span.name}'"),
                })


def read_metrics(message):
    for one in message.resource_metrics:
        for scope in one.scope_metrics:
            origin(one, scope)
            for metric in scope.metrics:
                name = metric.name
                if name.startswith("gen_ai.") and name not in NAMES:
                    wrong(f"the conventions have no metric '{name}'")
                if metric.WhichOneof("data") != "histogram":
                    wrong(f"metric '{name}' is no histogram")
                if metric.histogram.aggregation_temporality != 2:
                    wrong(f"metric '{name}' is not cumulative")
                rows = []
                for point in metric.histogram.data_points:
                    if sum(point.bucket_counts) != point.count:
                        wrong(f"metric '{name}' counts wrongly")
                    if len(point.bucket_counts) != len(point.explicit_bounds) + 1:
                        wrong(f"metric '{name}' has the wrong number of buckets")
                    if list(point.explicit_bounds) != sorted(point.explicit_bounds):
                        wrong(f"metric '{name}' has bounds in disorder")
                    if not 0 < point.start_time_unix_nano <= point.time_unix_nano:
                        wrong(f"metric '{name}' has times in disorder")
                    rows.append({
                        "count": point.count,
                        "sum": point.sum,
                        "attributes": attributes(point.attributes, f"metric '{name}'"),
                    })
                told["metrics"][name] = {"unit": metric.unit, "rows": rows}


def read_logs(message):
    for one in message.resource_logs:
        for scope in one.scope_logs:
            origin(one, scope)
            for record in scope.log_records:
                if not record.time_unix_nano or not record.observed_time_unix_nano:
                    wrong("a log record has no time")
                if not record.severity_number or not record.severity_text:
                    wrong("a log record has no severity")
                told["logs"].append({
                    "event": record.event_name,
                    "severity": record.severity_text,
                    "body": plain(record.body),
                    "trace": record.trace_id.hex(),
                    "span": record.span_id.hex(),
                    "attributes": attributes(record.attributes, "a log record"),
                })


READERS = {"/v1/traces": read_traces, "/v1/metrics": read_metrics, "/v1/logs": read_logs}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, data, media_type):
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def say(self, value):
        self.reply(200, json.dumps(value).encode(), "application/json")

    def do_GET(self):
        with lock:
            if self.path.startswith("/holds?"):
                text = urllib.parse.unquote(self.path.removeprefix("/holds?")).encode()
                self.say({"holds": any(text in body for body in bodies), "bodies": len(bodies)})
            else:
                self.say(told)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        if self.path.startswith("/answer/"):
            answer["status"] = int(self.path.removeprefix("/answer/"))
            return self.say({})
        if self.path not in KINDS:
            return self.reply(404, b"", "text/plain")
        with lock:
            told["headers"].append({name.lower(): value for name, value in self.headers.items()})
            bodies.append(body)
            if self.headers["content-type"] != "application/x-protobuf":
                wrong(f"content-type {self.headers['content-type']}")
            request, response = KINDS[self.path]
            if answer["status"] == 200:
                message = request.FromString(body)
                unknown(message)
                # What cannot be written as JSON is no valid message either.
                MessageToDict(message)
                READERS[self.path](message)
        self.reply(answer["status"], response().SerializeToString(), "application/x-protobuf")


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"ready {server.server_address[1]}", flush=True)
sys.stdout.flush()
server.serve_forever()
