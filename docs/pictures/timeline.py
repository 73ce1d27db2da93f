#!/usr/bin/env python3
"""Takes the picture of a simulated run's timeline, as a browser draws it.

Runs the simulator, opens the page in Chromium without a window and keeps what it shows:

    python3 docs/pictures/timeline.py
"""

import argparse
import base64
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests", "python"))

from browser import Browser  # noqa: E402  the path above leads to it

STORY = ["--scenario", "partition", "--nodes", "5", "--seed", "42"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default=os.path.join(HERE, "timeline.png"))
    parser.add_argument("--scheme", default="light", choices=["light", "dark"])
    parser.add_argument("--selvedge", help="the program; default: built from this tree")
    parser.add_argument("story", nargs="*", help="options of `selvedge sim run`; default: a partition")
    options = parser.parse_args()
    program = [options.selvedge] if options.selvedge else ["cargo", "run", "--quiet", "--release", "--"]
    with tempfile.TemporaryDirectory() as folder:
        page = os.path.join(folder, "run.html")
        subprocess.run([*program, "sim", "run", *(options.story or STORY), "--html", page], check=True)
        with Browser() as browser:
            browser.open(page)
            browser.prefer(options.scheme)
            # As high as the page, so that no lane is cut off.
            height = browser.run("return document.querySelector('main').getBoundingClientRect().bottom")
            browser.post("/window/rect", {"width": 1440, "height": int(height) + 160})
            browser.settle()
            picture = browser.call("GET", browser.session + "/screenshot")
    with open(options.output, "wb") as file:
        file.write(base64.b64decode(picture))
    print(f"{options.output}: written")


main()
