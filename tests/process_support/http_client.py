"""A client of the router's HTTP input with nothing of the crate in it: Python's own http.client.

Argument: HOST:PORT. Says what is wrong and ends with 1, or prints the number of messages that were answered 200.
"""
import gzip
import http.client
import json
import socket
import sys

address = sys.argv[1]
taken = 0


def message(payload):
    return json.dumps({"type": "oldstyle", "payload": payload, "fields": {"by": "http.client"}}) + "\n"


def check(what, got, expected):
    if got != expected:
        sys.exit(f"{what}: {got}, not {expected}")


def ask(connection, body, expected, method="POST", **headers):
    global taken
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, "/any/path", body, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    check((method, headers, text), answer.status, expected)
    if expected == 200:
        taken += 1
    return answer, text


# One connection for all of these: keep-alive, whatever the answers were.
connection = http.client.HTTPConnection(address, timeout=30)
ask(connection, message("plain"), 200)
first = connection.sock
ask(connection, gzip.compress(message("packed").encode()), 200, Content_Encoding="gzip")
# A body of unknown length goes out in chunks.
ask(connection, (piece for piece in [message("chunks")[:7].encode(), message("chunks")[7:].encode()]), 200)
_, text = ask(connection, message("good") + "{}\n", 400)
check("the line is named", text, "line 2: type: missing\n")
ask(connection, b"not gzip", 400, Content_Encoding="gzip")
_, text = ask(connection, b"x" * 5_000_000, 413)
ask(connection, message("after all that"), 200)
check("it was one connection", connection.sock is first, True)

# These end the connection: http.client opens the next one by itself.
for expected, method, headers in [
    (405, "GET", {}),
    (405, "PUT", {}),
    (415, "POST", {"Content_Encoding": "br"}),
    (417, "POST", {"Expect": "a-miracle"}),
    (501, "POST", {"Transfer_Encoding": "gzip"}),
]:
    answer, _ = ask(connection, "" if method == "GET" else message("x"), expected, method, **headers)
    check("it closes", answer.getheader("Connection"), "close")
    if expected == 405:
        check("what is allowed", answer.getheader("Allow"), "POST")
connection.close()

# Without a length.
connection.putrequest("POST", "/")
connection.endheaders()
check("without a length", connection.getresponse().status, 411)
connection.close()

# Expect: 100-continue, which http.client leaves to its caller.
connection.putrequest("POST", "/")
body = message("after a word").encode()
connection.putheader("Content-Length", str(len(body)))
connection.putheader("Expect", "100-continue")
connection.endheaders()
check("a word before the body", connection.sock.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
connection.send(body)
check("after the body", connection.getresponse().status, 200)
taken += 1
connection.close()

# Many requests at once, and then their answers.
host, port = address.split(":")
with socket.create_connection((host, int(port)), 30) as pipeline:
    requests = b""
    for number in range(50):
        body = message(f"pipelined {number}").encode()
        requests += b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    pipeline.sendall(requests)
    answers = b""
    while answers.count(b"\r\n\r\n") < 50:
        more = pipeline.recv(65536)
        check("an answer", more != b"", True)
        answers += more
    check("all are taken", answers.count(b"HTTP/1.1 200 OK\r\n"), 50)
    taken += 50
    # HTTP/1.0 has one request a connection.
    pipeline.sendall(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    rest = b""
    while more := pipeline.recv(65536):
        rest += more
    check("HTTP/1.0 ends its connection", rest.startswith(b"HTTP/1.1 200 OK\r\n"), True)
    taken += 1
print(taken)
