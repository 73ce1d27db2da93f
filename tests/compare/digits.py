"""How the ten thousand digits are divided, for `cargo xtask bench federated`: as the published
accuracies were measured, which names numpy, one fifth that measures (seed 0) and seeds from 0.

`digits.py FOLDER held-out`: of every class a fifth, rounded down, measures and is never trained
on: 1,996 digits. A fifth of so few is easier or harder than the next by half a point. Prints a
JSON list of their places by class, sorted, a line each: what tests/compare/held_out.json holds.

`digits.py FOLDER divide CLIENTS SEEDS OUT`: who trains on what. Writes a JSON object: of every
division a list by seed of lists by client of places among the digits that are trained on, which
are in the order of the package: `equal`; `dirichlet_0.5`, `dirichlet_0.1` (Hsu et al. 2019, arXiv
1909.06335: each class by shares drawn anew); `shards_2` (McMahan et al. 2017, arXiv 1602.05629:
sorted by label, cut, two dealt to each).

FOLDER is where the npm package keeps the digits, a file each class.
"""

import json
import pathlib
import sys

import numpy as np

SIDE = 28
CLASSES = 10


def counts(folder):
    files = [folder / f"{label}.json" for label in range(CLASSES)]
    return [len(json.loads(file.read_text())["data"]) // (SIDE * SIDE) for file in files]


def held_out(sizes):
    """Of each class the places that measure, and those that are trained on, as they were drawn."""
    draw = np.random.default_rng(0)
    drawn = [draw.permutation(size) for size in sizes]
    return [(places[: len(places) // 5], places[len(places) // 5 :]) for places in drawn]


def dirichlet(trained, labels, clients, concentration, draw):
    while True:
        parts = [[] for _ in range(clients)]
        for label in range(CLASSES):
            own = draw.permutation(trained[labels[trained] == label])
            shares = draw.dirichlet([concentration] * clients)
            cuts = (np.cumsum(shares)[:-1] * len(own)).astype(int)
            for part, piece in zip(parts, np.split(own, cuts)):
                part.append(piece)
        parts = [np.concatenate(part) for part in parts]
        # Nobody is left without any.
        if all(len(part) for part in parts):
            return parts


def shards(trained, labels, clients, each, draw):
    by_label = trained[np.argsort(labels[trained], kind="stable")]
    pieces = np.array_split(by_label, clients * each)
    deal = draw.permutation(clients * each).reshape(clients, each)
    return [np.concatenate([pieces[at] for at in own]) for own in deal]


def divide(trained, labels, clients, seed):
    return {
        "equal": np.array_split(np.random.default_rng(seed).permutation(trained), clients),
        "dirichlet_0.5": dirichlet(trained, labels, clients, 0.5, np.random.default_rng(seed)),
        "dirichlet_0.1": dirichlet(trained, labels, clients, 0.1, np.random.default_rng(seed)),
        "shards_2": shards(trained, labels, clients, 2, np.random.default_rng(seed)),
    }


def main():
    sizes = counts(pathlib.Path(sys.argv[1]))
    parts = held_out(sizes)
    if sys.argv[2] == "held-out":
        lines = [json.dumps(sorted(map(int, held)), separators=(",", ":")) for held, _ in parts]
        print("[" + ",\n".join(lines) + "]")
        return
    clients, seeds = int(sys.argv[3]), int(sys.argv[4])
    starts = np.cumsum([0] + sizes)
    labels = np.repeat(np.arange(CLASSES), sizes)
    trained = np.concatenate([start + own for start, (_, own) in zip(starts, parts)])
    # Of a digit of the package its place among those that are trained on.
    place = np.full(len(labels), -1)
    place[np.sort(trained)] = np.arange(len(trained))
    told = {}
    for seed in range(seeds):
        for name, own in divide(trained, labels, clients, seed).items():
            told.setdefault(name, []).append([place[part].tolist() for part in own])
    pathlib.Path(sys.argv[5]).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
