"""Receivers that are not this crate's: they check every request against the documented format, and write what they took.

usage: receivers.py elasticsearch|loki|moody|refusing FILE

Prints its port. FILE gets a line of JSON for each message or entry taken, and {"violation": ...} for each request that
is not what the format's documentation says.
"""
import gzip, http.server, json, re, sys

mode, path = sys.argv[1:]
out = open(path, "a", buffering=1)
requests = 0
known_ids = set()
put_off = set()


def note(**what):
    out.write(json.dumps(what) + "\n")


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def lines_of(body):
    check(body.endswith(b"\n"), "the last line has no newline")
    return [line.decode("utf-8") for line in body[:-1].split(b"\n")]


def elasticsearch(handler, body):
    """Bulk API, Elasticsearch reference 8.x: action and source lines, each ended by a newline."""
    path, _, query = handler.path.partition("?")
    check(path == "/_bulk", "path " + handler.path)
    check(query == "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason", query)
    check(handler.headers["content-type"] == "application/x-ndjson", "content type")
    lines = lines_of(body)
    check(len(lines) % 2 == 0, "an action without a source")
    items, errors = [], False
    for action, source in zip(lines[::2], lines[1::2]):
        action, source = json.loads(action), json.loads(source)
        check(list(action) == ["create"] and set(action["create"]) <= {"_index", "_id"}, "action %r" % action)
        check(action["create"]["_index"] == "logs-shop", "index")
        check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", source["@timestamp"]), "@timestamp")
        check(isinstance(source["payload"], str), "payload")
        number, identity = source["fields"]["number"], action["create"].get("_id")
        error = None
        if number % 10 == 3 and number not in put_off:
            put_off.add(number)
            status, error = 429, {"type": "es_rejected_execution_exception", "reason": "the queue is full"}
        elif number % 50 == 7:
            status, error = 400, {"type": "mapper_parsing_exception", "reason": "no such field\nat all"}
        elif identity in known_ids:
            status, error = 409, {"type": "version_conflict_engine_exception", "reason": "exists"}
        else:
            status = 201
            if identity is not None:
                known_ids.add(identity)
            note(number=number, id=identity, source=source)
        errors = errors or error is not None
        items.append({"create": {"status": status, **({"error": error} if error else {})}})
    if requests == 1:
        # All of it was done, and nobody hears of it.
        return 502, b"bad gateway", {}
    return 200, json.dumps({"errors": errors, "items": items}).encode(), {"content-type": "application/json"}


def loki(handler, body):
    """POST /loki/api/v1/push, Loki HTTP API 3.x, JSON."""
    check(handler.path == "/loki/api/v1/push", "path " + handler.path)
    check(handler.headers["content-type"] == "application/json", "content type")
    request = json.loads(body)
    check(list(request) == ["streams"] and request["streams"], "keys %r" % list(request))
    seen = []
    for stream in request["streams"]:
        check(set(stream) == {"stream", "values"}, "stream keys")
        labels = stream["stream"]
        check(labels and labels not in seen, "labels %r" % labels)
        seen.append(labels)
        for name, value in labels.items():
            check(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name), "label name " + name)
            check(isinstance(value, str) and value, "label value")
        check(stream["values"], "no values")
        for entry in stream["values"]:
            check(len(entry) == 2, "entry")
            nanoseconds, line = entry
            check(isinstance(nanoseconds, str) and re.fullmatch(r"\d{19}", nanoseconds), "time %r" % nanoseconds)
            check(isinstance(line, str), "line")
            note(labels=labels, nanoseconds=nanoseconds, message=json.loads(line))
    return 204, b"", {}


def moody(handler, body):
    if requests == 1:
        return 429, b"slow down", {"retry-after": "1"}
    if requests == 2:
        return 503, b"", {}
    lines = lines_of(body)
    if len(body) > 3000:
        return 413, b"too long", {}
    for line in lines:
        note(number=json.loads(line)["fields"]["number"], request=requests)
    return 200, b"", {}


def refusing(handler, body):
    note(authorization=handler.headers["authorization"], scope=handler.headers["x-scope"])
    return 401, b"this key is unknown\nask the \x1b[31moperator\n", {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global requests
        requests += 1
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            if mode != "moody":
                check(self.headers["content-encoding"] == "gzip", "not compressed")
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            status, answer, headers = globals()[mode](self, body)
        except Exception as error:
            note(violation=repr(error))
            status, answer, headers = 400, b"violation", {}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(answer)))
        self.end_headers()
        if status != 204:
            self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
