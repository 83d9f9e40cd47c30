"""Plays Sentry's ingest endpoint, and judges what it gets with code that is not this crate's: envelopes are taken apart by
`sentry-sdk`, events go through the normaliser of `sentry-relay`, which Sentry's own servers use.

usage: sentry_ingest.py MODE FILE

Prints its port. FILE gets a line of JSON for each request. MODE: `takes`, `limits` (the first answer says that errors are
not wanted for a second, the second one is a 429), `refuses`.
"""
import gzip, http.server, json, re, sys, time

from sentry_relay.processing import StoreNormalizer
from sentry_sdk.envelope import Envelope

mode, path = sys.argv[1:]
out = open(path, "a", buffering=1)
requests = 0
normalizer = StoreNormalizer(project_id=42, protocol_version="7", is_renormalize=False)


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def judge(handler, body):
    match = re.fullmatch(r"(/prefix)?/api/(\d+)/envelope/", handler.path)
    check(match, "path " + handler.path)
    check(handler.headers["content-type"] == "application/x-sentry-envelope", "content type")
    auth = handler.headers["x-sentry-auth"]
    check(auth.startswith("Sentry "), "authentication")
    auth = dict(part.strip().split("=", 1) for part in auth[len("Sentry "):].split(","))
    check(auth["sentry_version"] == "7" and auth["sentry_client"].startswith("tracing-metlog/"), "authentication")
    envelope = Envelope.deserialize(body)
    check(len(envelope.items) == 1, "one item")
    item = envelope.items[0]
    check(item.type == "event", "an event")
    # What sentry-sdk gives back it has written anew; the length is that of the bytes on the wire.
    head, item_head, rest = body.split(b"\n", 2)
    length = json.loads(item_head)["length"]
    raw = rest[:length]
    check(rest[length:] == b"\n" and b"\n" not in raw, "length")
    event = json.loads(raw)
    check(item.payload.json == event, "the event")
    check(envelope.headers["event_id"] == event["event_id"], "the envelope's id")
    normal = normalizer.normalize_event(json.loads(raw))
    check(not normal.get("errors"), "errors: %r" % normal.get("errors"))
    return {"project": match.group(2), "key": auth["sentry_key"], "event": event, "normal": normal}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global requests
        requests += 1
        body = self.rfile.read(int(self.headers["content-length"]))
        status, answer, headers, note = 200, b"{}", {}, {}
        try:
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            note = judge(self, body)
            if mode == "limits" and requests == 1:
                headers = {"x-sentry-rate-limits": "1:error;default:key, 3600:transaction:organization"}
            elif mode == "limits" and requests == 2:
                status, headers = 429, {"retry-after": "1"}
            elif mode == "refuses":
                status, answer = 403, b'{"detail":"bad key ' + note["key"].encode() + b'"}'
        except Exception as error:
            note, status, answer = {"violation": repr(error)}, 400, b"violation"
        out.write(json.dumps({**note, "status": status, "at": time.time()}) + "\n")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
