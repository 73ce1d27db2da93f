"""A provider of one shape on a loopback port: `shape_server.py SHAPE`.

Owns connections, the faults and the record of what came. What a shape looks like is a module of
`shapes`. The model asked for chooses what happens: most answer, the names in TROUBLE do something
else. Whoever offers tools is answered with a call of the first; whoever brings a result back is told
that result.

GET /seen tells what was received and what of it was wrong, GET /left waits until a client has left
before its answer's end, GET /go lets an answer go on that waits for it.
"""

import importlib
import json
import re
import select
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import provider_embeddings
from shapes.common import AMAZON, KEY, Wrong

SHAPE = importlib.import_module(f"shapes.{sys.argv[1]}")
# What /left and /go wait for at most: longer than any test's own patience.
PATIENCE_S = 60
# How long a drip waits between two bytes: many of them fit into the shortest limit of a test.
DRIP_S = 0.1
# A careless provider repeats the key in its errors.
SECRETS = ":".join(AMAZON) if sys.argv[1] == "bedrock" else KEY
seen = []
wrong = []
left = threading.Semaphore(0)
go = threading.Semaphore(0)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/left":
            self.whole(200, {"left": left.acquire(timeout=PATIENCE_S)})
        elif self.path == "/go":
            go.release()
            self.whole(200, {})
        else:
            self.whole(200, {"seen": seen, "wrong": wrong})

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = json.loads(raw)
        seen.append({"path": self.path, "headers": headers, "body": body})
        if not SHAPE.is_authentic(self.path, headers, raw):
            return self.refuse(401, "who are you?")
        vectors = provider_embeddings.answer(self.path, body)
        if vectors:
            return self.whole(*vectors)
        try:
            turn = SHAPE.understand(self.path, body)
        except Wrong as error:
            wrong.append(f"{self.path}: {error} in {body}")
            return self.refuse(400, str(error))
        if turn is None:
            return self.refuse(404, "no such path")
        trouble = re.search("|".join(TROUBLE), turn.model)
        (TROUBLE[trouble[0]] if trouble else Handler.answer)(self, turn)

    def whole(self, status, value, headers=()):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, message, headers=()):
        value, own = SHAPE.error(status, message)
        self.whole(status, value, [*headers, *own])

    def answer(self, turn):
        if not turn.stream:
            return self.whole(200, SHAPE.whole(turn))
        self.begin()
        for piece in SHAPE.stream(turn):
            self.chunk(piece)
        self.end()

    def begin(self):
        self.send_response(200)
        self.send_header("content-type", SHAPE.STREAM)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def head(self, length):
        """Of a whole answer."""
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(length))
        self.end_headers()

    def some(self, turn, data):
        self.chunk(data) if turn.stream else self.wfile.write(data)

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def end(self):
        self.wfile.write(b"0\r\n\r\n")

    def half(self, turn):
        """The first half of an answer; returns the rest."""
        if turn.stream:
            pieces = SHAPE.stream(turn)
            self.begin()
            for piece in pieces[: len(pieces) // 2]:
                self.chunk(piece)
            return pieces[len(pieces) // 2 :]
        data = json.dumps(SHAPE.whole(turn)).encode()
        self.head(len(data))
        self.wfile.write(data[: len(data) // 2])
        return [data[len(data) // 2 :]]

    def until_left(self):
        """Says nothing until the client has closed its side."""
        self.close_connection = True
        ready, _, _ = select.select([self.connection], [], [], PATIENCE_S)
        if ready and self.connection.recv(1, socket.MSG_PEEK) == b"":
            left.release()

    def busy(self, _):
        self.refuse(429, f"slow down, {SECRETS}", [("retry-after", "7")])

    def broken(self, _):
        self.refuse(500, f"we are sorry, {SECRETS}")

    def silent(self, _):
        self.until_left()

    def stalled(self, turn):
        self.half(turn)
        self.until_left()

    def cut(self, turn):
        self.half(turn)
        self.close_connection = True
        # A close that the other side must see at once, whatever it has sent.
        self.connection.shutdown(socket.SHUT_RDWR)

    def garbled(self, turn):
        if not turn.stream:
            data = json.dumps(SHAPE.whole(turn)).encode().replace(b":", b"=", 3)
            self.head(len(data))
            return self.wfile.write(data)
        rest = self.half(turn)
        self.chunk(SHAPE.garble(rest[0]))
        self.until_left()

    def absurd(self, turn):
        self.answer(turn._replace(usage=(2**62, 2**62)))

    def untold(self, turn):
        self.answer(turn._replace(usage=None))

    def held(self, turn):
        """Whoever waits for it has seen the first half before the second is sent, byte by byte."""
        rest = self.half(turn)
        go.acquire(timeout=PATIENCE_S)
        for byte in b"".join(rest):
            self.some(turn, bytes([byte]))
        if turn.stream:
            self.end()

    def drip(self, turn):
        """Byte by byte, for ever; notes when its client leaves."""
        turn = turn._replace(words=turn.words * 1_000)
        data = SHAPE.stream(turn) if turn.stream else [json.dumps(SHAPE.whole(turn)).encode()]
        pause = threading.Event()
        self.close_connection = True
        try:
            self.begin() if turn.stream else self.head(len(data[0]))
            for byte in b"".join(data):
                self.some(turn, bytes([byte]))
                pause.wait(DRIP_S)
        except OSError:
            left.release()


TROUBLE = {
    name: getattr(Handler, name)
    for name in (
        ["busy", "broken", "silent", "stalled", "cut", "garbled", "absurd", "untold", "held", "drip"]
    )
}

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(f"ready {server.server_port}", flush=True)
server.serve_forever()
