"""A receiver of HTTP requests with nothing of the crate in it: Python's own server, JSON and gzip.

Arguments: a file for the lines of confirmed requests, the credentials it asks for (or nothing), and the statuses
that it gives before it confirms, in turn and then from the beginning (as 503,200,200). Prints its port.
"""
import gzip
import http.server
import itertools
import json
import sys

path, credentials, plan = sys.argv[1:]
statuses = itertools.cycle([int(status) for status in plan.split(",")])


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        status = next(statuses)
        if credentials and self.headers.get("Authorization") != credentials:
            status = 401
        elif self.headers.get("Content-Type") != "application/x-ndjson" or not body.endswith(b"\n"):
            status = 415
        if status == 200:
            for line in body.splitlines():
                json.loads(line)
            with open(path, "ab") as file:
                file.write(body)
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_address[1], flush=True)
server.serve_forever()
