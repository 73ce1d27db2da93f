"""What the scripts share: where the node is, and checks that say what they check."""

import os
import sys

URL = os.environ["SELVEDGE_URL"]
KEY = os.environ["SELVEDGE_KEY"]
MODEL = os.environ["SELVEDGE_MODEL"]
STORY = "Once upon a time, in a small village by the sea, there lived a"
QUESTION = [{"role": "user", "content": "Rewrite politely: give me the book."}]


def check(what, good, seen=None):
    """Prints one line per check and ends the script with the first one that fails."""
    if good:
        print("ok", what, flush=True)
        return
    print(f"FAILED {what}: {seen!r}", file=sys.stderr, flush=True)
    sys.exit(1)


def fails(what, kind, status, call):
    """Checks that a call raises this exception of the client library with this status."""
    try:
        answer = call()
    except kind as error:
        check(what, error.status_code == status, error)
        check(f"{what}: says what to do", len(str(error.body.get("message", ""))) > 10, error.body)
        return error
    except Exception as error:  # any other kind is the failure this reports
        check(what, False, error)
    check(what, False, answer)


def done():
    print("all good")
