"""A provider with an OpenAI-shaped API: every answer costs the same, and it counts what it served.

What it counts is the truth of the comparison: tokens that left the provider have been spent,
whatever a gateway in front of it believes.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Threads that end with the program, and a backlog for all clients at once."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        """A gateway that ends in the middle of a request is no error here."""


def listen(handler):
    """A server on a free port of loopback, serving in the background."""
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Keep-alive, whole answers in one write, no log."""

    protocol_version = "HTTP/1.1"
    # The answer leaves at once, not with the acknowledgement of the one before.
    disable_nagle_algorithm = True

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def reply(self, status, document, headers=()):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Provider:
    """`tokens` an answer, half of them prompt, each answer `delay` seconds in the making."""

    def __init__(self, tokens, delay):
        self.tokens = tokens
        self.delay = delay
        self.answers = 0
        self.lock = threading.Lock()
        provider = self

        class Answers(Handler):
            def do_POST(self):
                self.body()
                time.sleep(provider.delay)
                with provider.lock:
                    provider.answers += 1
                self.reply(200, provider.answer())

        self.server, self.url = listen(Answers)

    @property
    def served(self):
        """Tokens that have left."""
        return self.answers * self.tokens

    def answer(self):
        half = self.tokens // 2
        text = {"role": "assistant", "content": "word " * 8}
        return {
            "id": f"chatcmpl-{self.answers}",
            "object": "chat.completion",
            "created": 0,
            "model": "fixed",
            "choices": [{"index": 0, "message": text, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": half,
                "completion_tokens": self.tokens - half,
                "total_tokens": self.tokens,
            },
        }
