"""What the shapes share: what is answered, and the keys that open."""

import json
from typing import NamedTuple

WORDS = ["Good", " morning", ",", " how", " are", " you", "?"]
USAGE = (21, 7)
ARGUMENTS = ['{"city"', ': "Ghent"}']
# One key for each provider, planted: nowhere but in requests may they be found.
KEY = "sk-planted-5b1f0c9e7a44"
AMAZON = ("AKIAPLANTED5B1F0C9E", "planted/5b1f0c9e7a44+secret")


class Wrong(Exception):
    """What is wrong with a request."""


class Turn(NamedTuple):
    """What is asked, and what is answered to it."""

    model: str
    stream: bool
    tool: str | None = None
    words: list = WORDS
    usage: tuple | None = USAGE

    @property
    def text(self):
        return "".join(self.words)


def turn(model, stream, tools, result):
    """The answer: a call of the first tool, or what the tool said, or a greeting."""
    if result is not None:
        return Turn(model, stream, words=[result[:2], result[2:]])
    return Turn(model, stream, tool=tools[0] if tools else None)


def sse(value, name=None):
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value)}\n\n".encode()


def broken_sse(piece):
    """An event whose JSON is none."""
    return piece.replace(b"{", b"[", 1)


def known(what, given, names):
    """Nothing is said that the provider has no name for."""
    unknown = set(given) - set(names)
    if unknown:
        raise Wrong(f"{what} knows no {sorted(unknown)}")
