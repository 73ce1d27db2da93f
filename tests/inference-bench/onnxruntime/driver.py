"""Measures ONNX Runtime for `cargo xtask bench inference`.

driver.py FOLDER MODEL THREADS WORDS loads the model and says `measured 0 MICROSECONDS`, then
answers each line of its input: `embed TEXTS WORDS SALT` with `measured TEXTS MICROSECONDS` of as
many texts of so many words as are made vectors of within a second, TEXTS at a time, and `vector
WORDS SALT` with `listed NUMBERS`, one text's vector. All texts of a request have the same length,
so that nothing is padded; they are made tokens before the time begins. That is the runtime's best
case. Ends when its input ends.
"""

import json
import sys
import time
from pathlib import Path

import numpy
import onnxruntime

# What is measured lasts so long at least.
SECONDS = 1.0


def text(words, length, salt, index):
    """As the other side makes it."""
    return [words[(salt * 7919 + index * 131 + at * 31 + at * at) % len(words)]
            for at in range(length)]


class Driver:
    """A loaded model."""

    def __init__(self, folder, model, threads, words):
        vocabulary = json.loads((Path(folder) / "tokenizer.json").read_text())["model"]["vocab"]
        self.words = Path(words).read_text().split()
        self.numbers = {word: vocabulary[word] for word in self.words}
        self.marks = vocabulary["[CLS]"], vocabulary["[SEP]"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )

    def request(self, count, length, salt):
        begin, end = self.marks
        rows = [
            [begin, *(self.numbers[word] for word in text(self.words, length, salt, at)), end]
            for at in range(count)
        ]
        tokens = numpy.array(rows, numpy.int32)
        kinds, mask = numpy.zeros_like(tokens), numpy.ones_like(tokens)
        return {"tokens": tokens, "kinds": kinds, "mask": mask}

    def run(self, request):
        return self.session.run(["vectors"], request)[0]

    def embed(self, count, length, salt):
        request = self.request(count, length, salt)
        # The first of a size makes its buffers.
        self.run(request)
        done, began = 0, time.perf_counter()
        while True:
            self.run(request)
            done += count
            took = time.perf_counter() - began
            if took >= SECONDS:
                return f"measured {done} {round(took * 1e6)}"

    def vector(self, length, salt):
        numbers = self.run(self.request(1, length, salt))[0]
        return "listed " + " ".join(repr(float(number)) for number in numbers)


def main():
    began = time.perf_counter()
    folder, model, threads, words = sys.argv[1:]
    driver = Driver(folder, model, int(threads), words)
    print(f"measured 0 {round((time.perf_counter() - began) * 1e6)}", flush=True)
    for line in sys.stdin:
        order, *numbers = line.split()
        numbers = [int(number) for number in numbers]
        print({"embed": driver.embed, "vector": driver.vector}[order](*numbers), flush=True)


if __name__ == "__main__":
    main()
