"""What metlog-py and its routers do over ZeroMQ, with pyzmq and nothing of the crate.

receive PATH [PORT [HANDSHAKE_PORT [late]]]
    A SUB socket that binds and subscribes to everything (late: when a line comes in), and a REP socket that answers every question. Appends each
    message to PATH, as a line; one of several parts as the line "PARTS". Prints both ports. Ends with its standard input.
send ADDRESS HANDSHAKE COUNT TIMEOUT
    As `ZmqHandshakePubSender`: a REQ socket asks HANDSHAKE, and waits TIMEOUT milliseconds for any answer; without one
    it prints "no answer" and ends. Then a PUB socket connects to ADDRESS. It sends messages of type "early" until a line
    comes in, then COUNT messages of type "numbered", and waits until all are sent.
"""
import json
import select
import sys
import time

import zmq

context = zmq.Context()


def bound(kind, port):
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    deadline = time.time() + 20
    while True:
        try:
            socket.bind("tcp://127.0.0.1:%s" % (port or "*"))
            return socket, socket.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1].rstrip("\0")
        except zmq.ZMQError:
            # The port of a receiver that has just ended.
            if time.time() > deadline:
                raise
            time.sleep(0.01)


def receive(path, port=None, handshake_port=None, late=None):
    messages, port = bound(zmq.SUB, port)
    if not late:
        messages.setsockopt(zmq.SUBSCRIBE, b"")
    questions, handshake_port = bound(zmq.REP, handshake_port)
    print(port, handshake_port, flush=True)
    poller = zmq.Poller()
    for readable in (messages, questions, sys.stdin.fileno()):
        poller.register(readable, zmq.POLLIN)
    with open(path, "ab", buffering=0) as lines:
        while True:
            for readable, _ in poller.poll():
                if readable is messages:
                    parts = messages.recv_multipart()
                    lines.write((parts[0] if len(parts) == 1 else b"PARTS") + b"\n")
                elif readable is questions:
                    questions.recv()
                    questions.send(b"")
                elif sys.stdin.readline():
                    messages.setsockopt(zmq.SUBSCRIBE, b"")
                else:
                    return


def message(kind, payload):
    """json.dumps of Python 2: ASCII, with blanks."""
    return json.dumps({"timestamp": "2012-10-24T22:20:43.000000Z", "type": kind, "logger": "py\u00e9", "severity": 6,
                       "payload": payload, "fields": {}, "env_version": "0.8", "metlog_pid": 1,
                       "metlog_hostname": "h"}).encode("ascii")


def send(address, handshake, count, timeout):
    question = context.socket(zmq.REQ)
    question.setsockopt(zmq.LINGER, 0)
    question.connect(handshake)
    question.send(b"")
    if not question.poll(int(timeout)):
        print("no answer", flush=True)
        return
    print("answer %r" % question.recv(), flush=True)
    question.close()
    publisher = context.socket(zmq.PUB)
    publisher.setsockopt(zmq.SNDHWM, 1_000_000)
    # metlog-py has 0 here, and loses what is queued at its end.
    publisher.setsockopt(zmq.LINGER, 20_000)
    publisher.connect(address)
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        publisher.send(message("early", ""))
    for number in range(int(count)):
        publisher.send(message("numbered", str(number)))
    publisher.close()
    context.term()


{"receive": receive, "send": send}[sys.argv[1]](*sys.argv[2:])
