"""How far three replicas of a gateway pass one budget, connected and cut from each other.

    python3 tests/compare/overspend.py GATEWAY [--cut] [--shared] [options]

Clients ask the replicas in turn for answers of a fixed size until five times the budget has been
asked for. What the provider served, divided by the budget, is the overspend factor: 1.00 or less
keeps the budget. With --cut the replicas lose each other (and what they share) once a fifth of the
budget has been served; the first replica keeps the shared store.
"""

import argparse
import json
import tempfile
import threading
import time
from http.client import HTTPConnection
from itertools import count
from urllib.parse import urlsplit

import counters
import peers
import selvedge
from upstream import Provider

REPLICAS = 3
# Asked for in all, in budgets: enough that every replica could serve the whole budget alone.
ASKED = 5
LITELLM = ("model-tpm", "provider-budget", "max-budget", "key-tpm", "key-budget")


class Load:
    """Clients that ask the replicas in turn, each answered before it asks again."""

    def __init__(self, urls, requests, headers, path, body):
        self.urls, self.requests, self.headers = urls, requests, headers
        self.path, self.body = path, json.dumps(body)
        self.turns = count()
        self.answers = [{} for _ in urls]
        self.served_after_cut = [0] * len(urls)
        self.tokens = 0
        self.cut_done = threading.Event()
        self.lock = threading.Lock()

    def run(self, clients):
        threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self):
        connections = {}
        while (turn := next(self.turns)) < self.requests:
            index = turn % len(self.urls)
            status, tokens = self._ask(connections, index)
            with self.lock:
                self.answers[index][status] = self.answers[index].get(status, 0) + 1
                self.tokens += tokens
                if self.cut_done.is_set():
                    self.served_after_cut[index] += tokens

    def _ask(self, connections, index):
        """The status, or what broke, and the tokens that came back."""
        reused = index in connections
        try:
            if not reused:
                address = urlsplit(self.urls[index])
                connections[index] = HTTPConnection(address.hostname, address.port, timeout=60)
            connection = connections[index]
            connection.request("POST", self.path, self.body, self.headers)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status == 200:
                return 200, json.loads(said)["usage"]["total_tokens"]
            # Some close the connection behind a refusal without saying so.
            connections.pop(index).close()
            return answer.status, 0
        except OSError as error:
            connections.pop(index, None)
            if reused and isinstance(error, ConnectionError):
                # It was closed while it lay idle: nothing had been asked yet.
                return self._ask(connections, index)
            return type(error).__name__, 0


def start(options, folder, provider):
    """URLs of the replicas, wires to cut, processes to end."""
    name = options.gateway
    if name.startswith("counter"):
        _, charge, lost = name.split("-")
        urls, wires = counters.start(provider, options.cap, REPLICAS, charge, lost)
        return urls, wires, []
    if name.startswith("litellm-"):
        kind = name.removeprefix("litellm-")
        return peers.start_litellm(
            folder, options, kind, provider.url, options.cap, options.shared
        )
    if name == "haproxy":
        return peers.start_haproxy(
            folder, options, provider.url, options.cap, options.tokens, options.shared
        )
    return peers.start_portkey(folder, options)


def measure_peer(options, folder):
    """One run of a gateway in front of the provider, which counts."""
    provider = Provider(options.tokens, options.delay_ms / 1000)
    urls, wires, processes = start(options, folder, provider)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {peers.KEY}"}
    if options.gateway == "portkey":
        headers["x-portkey-provider"] = "openai"
        headers["x-portkey-custom-host"] = provider.url + "/v1"
    message = {"role": "user", "content": "say something"}
    body = {"model": "fixed", "max_tokens": 100, "messages": [message]}
    load = Load(urls, asked(options), headers, "/v1/chat/completions", body)
    if options.gateway.endswith("tpm"):
        # A limit per minute: the whole load belongs to one minute of the clock.
        time.sleep(60 - time.time() % 60)
    try:
        seconds = drive(options, load, wires, lambda: provider.served)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    return outcome(options, load, provider.served, seconds)


def measure_selvedge(options, folder):
    """One run of three nodes that answer themselves; what clients were told counts."""
    mesh = selvedge.Mesh(folder, options)
    try:
        cables = mesh.wire()
        selvedge.enter(mesh.bridge)
        key = mesh.found()
        urls = [f"http://10.78.0.{index + 1}:8420" for index in range(REPLICAS)]
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        half = options.tokens // 2
        body = {"model": "tiny", "prompt": "x" * half, "max_tokens": options.tokens - half}
        load = Load(urls, asked(options), headers, "/v1/completions", body)
        seconds = drive(options, load, cables, lambda: load.tokens)
        return outcome(options, load, load.tokens, seconds)
    finally:
        mesh.end()


def asked(options):
    return ASKED * options.cap // options.tokens


def drive(options, load, wires, served):
    """The load from beginning to end; the seconds it took."""
    if options.cut:
        cutter = threading.Thread(target=cut, args=(options, load, wires, served), daemon=True)
        cutter.start()
    begun = time.monotonic()
    load.run(options.clients)
    return time.monotonic() - begun


def cut(options, load, wires, served):
    """Takes the wires away once a fifth of the budget has been served."""
    while served() < options.cap // 5:
        time.sleep(0.002)
    for wire in wires:
        wire.cut()
    load.cut_done.set()


def outcome(options, load, served, seconds):
    return {
        "gateway": options.gateway,
        "shared": options.shared or options.gateway.startswith("counter"),
        "cut": options.cut,
        "cap": options.cap,
        "served": served,
        "factor": round(served / options.cap, 2),
        "answers_by_replica": load.answers,
        "served_after_cut": load.served_after_cut,
        "seconds": round(seconds, 1),
    }


def main():
    models = [f"counter-{c}-{o}" for c in ("before", "after") for o in ("open", "local", "closed")]
    known = [*models, *(f"litellm-{kind}" for kind in LITELLM), "haproxy", "portkey", "selvedge"]
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("gateway", choices=known)
    parser.add_argument("--cut", action="store_true", help="cut the replicas from each other")
    parser.add_argument("--shared", action="store_true", help="with the gateway's shared store")
    parser.add_argument("--cap", type=int, default=20_000, help="the budget in tokens")
    parser.add_argument("--tokens", type=int, default=200, help="tokens an answer")
    parser.add_argument("--clients", type=int, default=6, help="clients at the same time")
    parser.add_argument("--delay-ms", type=int, default=50, help="how long an answer takes")
    parser.add_argument("--litellm", default="litellm", help="the program")
    parser.add_argument("--redis", default="redis-server", help="the program")
    parser.add_argument("--haproxy", default="haproxy", help="the program")
    parser.add_argument("--portkey", help="build/start-server.js of the package")
    parser.add_argument("--selvedge", default="target/debug/selvedge", help="the program")
    parser.add_argument("--model", help="the tiny model of the tests")
    parser.add_argument("--folder", help="where configurations and logs are kept")
    options = parser.parse_args()
    measure = measure_selvedge if options.gateway == "selvedge" else measure_peer
    if options.folder:
        print(json.dumps(measure(options, options.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, folder)))


if __name__ == "__main__":
    main()
