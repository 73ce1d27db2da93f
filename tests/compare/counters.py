"""Model gateways around one shared counter, as most gateways are built.

Each replica is a small HTTP proxy. The counter is one more process's worth of state behind a
wire; what a replica does when the counter does not answer is the point of the exercise.
"""

import json
import socket
import threading
import urllib.request

from upstream import Handler, listen
from wires import Wire

# How long a replica waits for the counter before it calls it unreachable.
PATIENCE = 0.2


class Counter:
    """The shared store: adds to a number and says the sum, one line each way."""

    def __init__(self):
        self.value = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            peer, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        try:
            with peer, peer.makefile("rw") as lines:
                for line in lines:
                    with self.lock:
                        self.value += int(line)
                        value = self.value
                    lines.write(f"{value}\n")
                    lines.flush()
        except OSError:
            pass  # the replica has ended


class Replica:
    """One gateway. `charge` is "after" the answer or "before" it (reserve, give back on refusal);
    `lost` says what an unreachable counter means: "open" (serve without counting), "local"
    (count alone from zero) or "closed" (refuse)."""

    def __init__(self, provider, cap, wire, charge, lost):
        self.provider, self.cap, self.wire = provider, cap, wire
        self.charge, self.lost = charge, lost
        self.alone = 0
        self.cut_off = False
        self.lock = threading.Lock()
        self.local = threading.local()
        replica = self

        class Proxy(Handler):
            def do_POST(self):
                body = self.body()
                if replica.admits():
                    self.reply(200, replica.ask(body))
                else:
                    self.reply(429, {"error": {"message": "budget spent", "type": "budget"}})

        self.server, self.url = listen(Proxy)

    def admits(self):
        tokens = self.provider.tokens
        if self.charge == "before":
            total = self.add(tokens)
            if total is not None and total > self.cap:
                self.add(-tokens)
                return False
            return total is not None or self.lost == "open"
        total = self.add(0)
        if total is None:
            return self.lost == "open"
        return total < self.cap

    def ask(self, body):
        request = urllib.request.Request(self.provider.url + "/v1/chat/completions", body)
        with urllib.request.urlopen(request) as answer:
            document = json.load(answer)
        if self.charge == "after":
            self.add(document["usage"]["total_tokens"])
        return document

    def add(self, amount):
        """The new sum, or None when the counter is out of reach and nothing stands in for it."""
        if not self.cut_off:
            try:
                return self._remote(amount)
            except OSError:
                self.cut_off = True
        if self.lost != "local":
            return None
        with self.lock:
            self.alone += amount
            return self.alone

    def _remote(self, amount):
        lines = getattr(self.local, "lines", None)
        if lines is None:
            stream = socket.create_connection(("127.0.0.1", self.wire.port), PATIENCE)
            stream.settimeout(PATIENCE)
            lines = self.local.lines = stream.makefile("rw")
        lines.write(f"{amount}\n")
        lines.flush()
        line = lines.readline()
        if not line:
            raise OSError("the counter has gone")
        return int(line)


def start(provider, cap, replicas, charge, lost):
    """The replicas and the wires from the second replica on: the first keeps the counter."""
    counter = Counter()
    wires = [Wire(counter.port) for _ in range(replicas)]
    gateways = [Replica(provider, cap, wire, charge, lost) for wire in wires]
    return [gateway.url for gateway in gateways], wires[1:]
