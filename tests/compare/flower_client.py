"""What a client of the job in flower.py does: two passes of plain steps over its digits, by numpy,
which for steps this small spends less than a framework does.

A module of its own, as the workers of Flower's simulation import it: what a worker has read then
stays with it from round to round, as it does in a node.
"""

import functools
import os
import pathlib

# Before numpy: one client computes on one core, and two of them run at a time.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

EPOCHS, BATCH, RATE = 2, 32, 0.05
FOLDER = "SELVEDGE_BENCH_FOLDER"


@functools.lru_cache
def examples(name):
    folder = pathlib.Path(os.environ[FOLDER])
    values = np.fromfile(folder / f"{name}.x", dtype="<f4").reshape(-1, 784)
    return values, np.fromfile(folder / f"{name}.y", dtype="<u4").astype(np.int64)


def step(weights, values, labels):
    """One step of gradient descent on the mean cross-entropy, in place."""
    w1, b1, w2, b2 = weights
    hidden = np.maximum(values @ w1.T + b1, 0.0)
    scores = hidden @ w2.T + b2
    scores -= scores.max(axis=1, keepdims=True)
    chance = np.exp(scores)
    chance /= chance.sum(axis=1, keepdims=True)
    chance[np.arange(len(labels)), labels] -= 1.0
    chance *= np.float32(RATE / len(labels))
    back = (chance @ w2) * (hidden > 0)
    w2 -= chance.T @ hidden
    b2 -= chance.sum(axis=0)
    w1 -= back.T @ values
    b1 -= back.sum(axis=0)


client = ClientApp()


@client.train()
def train(message, context):
    weights = [w.copy() for w in message.content["arrays"].to_numpy_ndarrays()]
    values, labels = examples(f"client-{context.node_config['partition-id']}")
    order = np.random.default_rng(int(message.content["config"]["server-round"]))
    for _ in range(EPOCHS):
        places = order.permutation(len(labels))
        for at in range(0, len(places), BATCH):
            chosen = places[at : at + BATCH]
            step(weights, values[chosen], labels[chosen])
    content = RecordDict(
        {
            "arrays": ArrayRecord(weights),
            "metrics": MetricRecord({"num-examples": len(labels)}),
        }
    )
    return Message(content=content, reply_to=message)
