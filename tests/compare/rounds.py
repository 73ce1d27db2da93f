"""Federated rounds by numpy alone, for `cargo xtask bench federated`: what the same job comes to
without shares, integers, seals or machines, written from the papers and not from the product.

Reads what the bench wrote: a folder with `jobs.json`, a list of jobs of `folder`, `strategy`
(`average`, `scaffold`, `multi_krum`), `clients`, `rounds`, `attackers`, `clip` (how far one weight
may move in a round: more is cut), `seed` and `order` (the examples' order is drawn from both); and
a folder for each with `first.f32` (weights), `client-N.x` and `client-N.y` (f32 values and u32
labels), `test.x`, `test.y`. Trains a multilayer perceptron 784-100-10. Prints one JSON list: of
every job its accuracy by round.

Federated averaging: McMahan et al. 2017, arXiv 1602.05629. SCAFFOLD: Karimireddy et al. 2020,
arXiv 1910.06378, its second way to renew a client's variate. Multi-Krum: Blanchard et al. 2017,
arXiv 1703.02757.
"""

import concurrent.futures
import json
import os
import pathlib
import sys

# Before numpy: one job computes on one core.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

EPOCHS, BATCH, RATE = 2, 32, 0.05
SHAPES = [(100, 784), (100,), (10, 100), (10,)]
# What an attacker sends is what it learned, so many times.
ATTACK = -4.0
# Of ten clients two may lie: multi-Krum keeps the other eight.
LIARS = 2


def examples(folder, name):
    values = np.fromfile(folder / f"{name}.x", dtype="<f4").reshape(-1, 784)
    return values, np.fromfile(folder / f"{name}.y", dtype="<u4").astype(np.int64)


def parts(flat):
    """The weights' matrices, as views of one array."""
    views, at = [], 0
    for shape in SHAPES:
        size = int(np.prod(shape))
        views.append(flat[at : at + size].reshape(shape))
        at += size
    return views


def train(base, values, labels, order, correction):
    """What a client learned, and its steps: two passes of plain descent on the mean cross-entropy."""
    flat = base.copy()
    w1, b1, w2, b2 = parts(flat)
    steps = 0
    for _ in range(EPOCHS):
        places = order.permutation(len(labels))
        for at in range(0, len(places), BATCH):
            chosen = places[at : at + BATCH]
            x, y = values[chosen], labels[chosen]
            hidden = np.maximum(x @ w1.T + b1, 0.0)
            scores = hidden @ w2.T + b2
            scores -= scores.max(axis=1, keepdims=True)
            chance = np.exp(scores)
            chance /= chance.sum(axis=1, keepdims=True)
            chance[np.arange(len(y)), y] -= 1.0
            chance *= np.float32(RATE / len(y))
            back = (chance @ w2) * (hidden > 0)
            w2 -= chance.T @ hidden
            b2 -= chance.sum(axis=0)
            w1 -= back.T @ x
            b1 -= back.sum(axis=0)
            if correction is not None:
                flat -= correction
            steps += 1
    return flat - base, steps


def krum(deltas):
    """The clients whose updates lie next to those of others."""
    count = len(deltas)
    near = count - LIARS - 2
    apart = np.array([[((a - b) ** 2).sum() for b in deltas] for a in deltas])
    # The first of each sorted row is the distance to itself.
    scores = [np.sort(row)[1 : near + 1].sum() for row in apart]
    return np.argsort(scores)[: count - LIARS]


def job(folder, one):
    order = np.random.default_rng([one["seed"], one["order"]])
    clients = [examples(folder, f"client-{at}") for at in range(one["clients"])]
    values, labels = examples(folder, "test")
    model = np.fromfile(folder / "first.f32", dtype="<f4")
    shared = np.zeros_like(model)
    own = [np.zeros_like(model) for _ in clients]
    clip = one["clip"]
    sizes = np.array([len(y) for _, y in clients], dtype=np.float64)
    accuracy = []
    for _ in range(one["rounds"]):
        deltas, changes = [], []
        for at, (x, y) in enumerate(clients):
            control = one["strategy"] == "scaffold"
            correction = np.float32(RATE) * (shared - own[at]) if control else None
            delta, steps = train(model, x, y, order, correction)
            if control:
                renewed = own[at] - shared - delta / np.float32(steps * RATE)
                changes.append(np.clip(renewed - own[at], -clip, clip))
                own[at] = renewed
            said = delta * np.float32(ATTACK) if at < one["attackers"] else delta
            deltas.append(np.clip(said, -clip, clip))
        if one["strategy"] == "multi_krum":
            model = model + np.mean([deltas[at] for at in krum(deltas)], axis=0)
        else:
            model = model + np.average(deltas, axis=0, weights=sizes).astype(np.float32)
        if changes:
            shared = shared + np.average(changes, axis=0, weights=sizes).astype(np.float32)
        w1, b1, w2, b2 = parts(model)
        scores = np.maximum(values @ w1.T + b1, 0.0) @ w2.T + b2
        accuracy.append(float((scores.argmax(axis=1) == labels).mean()))
    return accuracy


def main():
    folder = pathlib.Path(sys.argv[1])
    jobs = json.loads((folder / "jobs.json").read_text())
    workers = len(os.sched_getaffinity(0))
    with concurrent.futures.ProcessPoolExecutor(max_workers=workers) as pool:
        running = [pool.submit(job, folder / one["folder"], one) for one in jobs]
        print(json.dumps([one.result() for one in running]))


if __name__ == "__main__":
    main()
