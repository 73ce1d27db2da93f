"""Federated averaging in Flower's simulation, for `cargo xtask bench federated`.

Reads what the bench wrote into a folder: `first.f32` (weights), `client-N.x` and `client-N.y`
(f32 values and u32 labels of one client), `test.x`, `test.y`. Trains a multilayer perceptron
784-100-10 with the steps of flower_client.py. Prints one JSON object: accuracy by round, and of
every round but the first, which starts the workers, its seconds without its measuring, and the CPU
seconds of a round in all processes. A client that fails ends it: rounds without clients are quick.
"""

import argparse
import json
import os
import pathlib
import sys
import time

# Before numpy: one client computes on one core, and two of them run at a time.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np
from flower_client import FOLDER, client, examples
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

SHAPES = [(100, 784), (100,), (10, 100), (10,)]


def first():
    flat = np.fromfile(pathlib.Path(os.environ[FOLDER]) / "first.f32", dtype="<f4")
    weights, at = [], 0
    for shape in SHAPES:
        size = int(np.prod(shape))
        weights.append(flat[at : at + size].reshape(shape).copy())
        at += size
    return weights


def cpu_seconds():
    """CPU time so far of this process and all that it started, which Ray's workers are."""
    parent, ticks = {}, {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            # What follows the name, which may hold anything: state, parent, .., user, system.
            fields = text.rpartition(")")[2].split()
            parent[entry.name] = fields[1]
            ticks[entry.name] = int(fields[11]) + int(fields[12])

    def is_own(process):
        while process in parent and process != str(os.getpid()):
            process = parent[process]
        return process == str(os.getpid())

    return sum(ticks[one] for one in ticks if is_own(one)) / os.sysconf("SC_CLK_TCK")


class Timed(FedAvg):
    """Federated averaging that notes how long a round takes from its first message to its model."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seconds = []
        self.cpu = []

    def configure_train(self, *args, **more):
        self.begun = time.perf_counter()
        return super().configure_train(*args, **more)

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        failed = [reply.error for reply in replies if reply.has_error()]
        if failed or len(replies) != self.min_train_nodes:
            raise SystemExit(f"round {server_round}: {len(replies)} replies, failed: {failed}")
        done = super().aggregate_train(server_round, replies)
        self.seconds.append(time.perf_counter() - self.begun)
        self.cpu.append(cpu_seconds())
        return done


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    os.environ[FOLDER] = str(pathlib.Path(options.folder).resolve())
    values, labels = examples("test")
    accuracy = []

    def measure(_round, arrays):
        w1, b1, w2, b2 = arrays.to_numpy_ndarrays()
        scores = np.maximum(values @ w1.T + b1, 0.0) @ w2.T + b2
        accuracy.append(float((scores.argmax(axis=1) == labels).mean()))
        return MetricRecord({"accuracy": accuracy[-1]})

    strategy = Timed(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=options.clients,
        min_available_nodes=options.clients,
    )
    server = ServerApp()

    @server.main()
    def run(grid, _context):
        strategy.start(grid, ArrayRecord(first()), num_rounds=options.rounds, evaluate_fn=measure)

    resources = {"num_cpus": 1, "num_gpus": 0.0}
    run_simulation(server, client, options.clients, backend_config={"client_resources": resources})
    # The first measure is of the first weights; the first round starts the workers.
    cpu = (strategy.cpu[-1] - strategy.cpu[0]) / (len(strategy.cpu) - 1)
    rounds = {"accuracy": accuracy[1:], "seconds": strategy.seconds[1:], "cpu_seconds": cpu}
    print(json.dumps(rounds), file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
