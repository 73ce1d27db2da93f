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
from upstream import Provider

REPLICAS = 3
# Asked for in all, in budgets: enough that every replica could serve the whole budget alone.
ASKED = 5
LITELLM = ("model-tpm", "provider-budget", "max-budget", "key-tpm", "key-budget")


class Load:
    """Clients that ask the replicas in turn, each answered before it asks again."""

    def __init__(self, urls, requests, headers):
        self.urls, self.requests, self.headers = urls, requests, headers
        self.turns = count()
        self.answers = [{} for _ in urls]
        self.served_after_cut = [0] * len(urls)
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
        for turn in iter(lambda: next(self.turns), self.requests):
            if turn > self.requests:
                return
            index = turn % len(self.urls)
            status = self._ask(connections, index)
            with self.lock:
                self.answers[index][status] = self.answers[index].get(status, 0) + 1
                if status == 200 and self.cut_done.is_set():
                    self.served_after_cut[index] += 1

    def _ask(self, connections, index):
        message = {"role": "user", "content": "say something"}
        body = json.dumps({"model": "fixed", "max_tokens": 100, "messages": [message]})
        try:
            if index not in connections:
                address = urlsplit(self.urls[index])
                connections[index] = HTTPConnection(address.hostname, address.port, timeout=60)
            connection = connections[index]
            connection.request("POST", "/v1/chat/completions", body, self.headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except OSError as error:
            connections.pop(index, None)
            return type(error).__name__


def start(options, folder, provider):
    """URLs of the replicas, wires to cut, processes to end, headers of a request."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {peers.KEY}"}
    name = options.gateway
    if name.startswith("counter"):
        _, charge, lost = name.split("-")
        urls, wires = counters.start(provider, options.cap, REPLICAS, charge, lost)
        return urls, wires, [], headers
    if name.startswith("litellm-"):
        kind = name.removeprefix("litellm-")
        started = peers.start_litellm(
            folder, options, kind, provider.url, options.cap, options.shared
        )
        return *started, headers
    if name == "haproxy":
        started = peers.start_haproxy(
            folder, options, provider.url, options.cap, options.tokens, options.shared
        )
        return *started, headers
    headers["x-portkey-provider"] = "openai"
    headers["x-portkey-custom-host"] = provider.url + "/v1"
    return *peers.start_portkey(folder, options), headers


def measure(options, folder):
    """One run: what was served and by whom."""
    provider = Provider(options.tokens, options.delay_ms / 1000)
    urls, wires, processes, headers = start(options, folder, provider)
    load = Load(urls, ASKED * options.cap // options.tokens, headers)
    try:
        cutter = threading.Thread(target=cut, args=(options, provider, wires, load), daemon=True)
        cutter.start()
        begun = time.monotonic()
        load.run(options.clients)
        seconds = time.monotonic() - begun
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    return {
        "gateway": options.gateway,
        "shared": options.shared or options.gateway.startswith("counter"),
        "cut": options.cut,
        "cap": options.cap,
        "served": provider.served,
        "factor": round(provider.served / options.cap, 2),
        "answers_by_replica": load.answers,
        "served_after_cut": [n * options.tokens for n in load.served_after_cut],
        "seconds": round(seconds, 1),
    }


def cut(options, provider, wires, load):
    """Takes the wires away once a fifth of the budget has been served."""
    if not options.cut:
        return
    while provider.served < options.cap // 5:
        time.sleep(0.002)
    for wire in wires:
        wire.cut()
    load.cut_done.set()


def main():
    models = [f"counter-{c}-{o}" for c in ("before", "after") for o in ("open", "local", "closed")]
    known = [*models, *(f"litellm-{kind}" for kind in LITELLM), "haproxy", "portkey"]
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
    parser.add_argument("--folder", help="where configurations and logs are kept")
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(measure(options, options.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, folder)))


if __name__ == "__main__":
    main()
