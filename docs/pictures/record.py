#!/usr/bin/env python3
"""Records a program in a terminal and writes what it showed as an animated SVG.

Runs the program in a pseudo terminal, notes what it prints and when, plays that into a small
terminal model and writes one picture per change. Needs nothing but Python; the picture needs
nothing but a browser. By default it records the demo:

    python3 docs/pictures/record.py
"""

import argparse
import fcntl
import html
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

COLUMNS, ROWS = 96, 32
# Changes closer together than this share a picture: faster than anyone reads.
FRAME_SECONDS = 0.12
# A pause longer than this is shown as this long, so that nobody watches a download.
LONGEST_PAUSE = 2.0
# How long the last picture stays before the film starts again.
LAST_PAUSE = 6.0
# A program that takes longer than this is stopped and the recording fails.
LONGEST_RUN = 900.0

CELL_WIDTH, CELL_HEIGHT, MARGIN, BAR = 8.4, 18, 14, 26
BACKGROUND, FOREGROUND = "#14171c", "#d5dae0"
PALETTE = [
    "#3b4048", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d5dae0",
    "#7f8794", "#ff8a93", "#b5e08f", "#ffdc93", "#82c5ff", "#df95f5", "#74d3df", "#ffffff",
]

ESCAPE = re.compile(r"\x1b(?:\[([?0-9;]*)([A-Za-z])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>78])")


def record(command):
    """Runs the command in a terminal; the (seconds, text) pieces it printed and its exit status."""
    size = struct.pack("HHHH", ROWS, COLUMNS, 0, 0)
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, size)
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.environ.pop("NO_COLOR", None)
        os.execvp(command[0], command)
    started, pieces, pending = time.monotonic(), [], b""
    while True:
        left = started + LONGEST_RUN - time.monotonic()
        if left <= 0:
            os.kill(pid, signal.SIGINT)
            os.waitpid(pid, 0)
            sys.exit(f"stopped after {LONGEST_RUN:.0f} s")
        readable, _, _ = select.select([terminal], [], [], left)
        if not readable:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:
            data = b""
        if not data:
            break
        pending += data
        text = pending.decode("utf-8", errors="ignore")
        # An unfinished character at the end waits for its other bytes.
        pending = b"" if text.encode() == pending else pending[len(text.encode()):]
        pieces.append((time.monotonic() - started, text))
        sys.stdout.write(text)
        sys.stdout.flush()
    _, status = os.waitpid(pid, 0)
    return pieces, os.waitstatus_to_exitcode(status)


class Terminal:
    """A grid of styled characters that scrolls."""

    def __init__(self):
        self.lines = [[]]
        self.top = self.row = self.column = 0
        self.style = (None, False, False)
        self.rest = ""

    def feed(self, text):
        text, at = self.rest + text, 0
        self.rest = ""
        while at < len(text):
            char = text[at]
            if char == "\x1b":
                found = ESCAPE.match(text, at)
                if not found:
                    if len(text) - at < 32:
                        self.rest = text[at:]
                        return
                    at += 1
                    continue
                if found.group(2):
                    self.control(found.group(1), found.group(2))
                at = found.end()
                continue
            if char == "\n":
                self.down()
            elif char == "\r":
                self.column = 0
            elif char == "\b":
                self.column = max(0, self.column - 1)
            elif char >= " ":
                self.put(char)
            at += 1

    def put(self, char):
        if self.column >= COLUMNS:
            self.column = 0
            self.down()
        line = self.lines[self.row]
        while len(line) <= self.column:
            line.append((" ", (None, False, False)))
        line[self.column] = (char, self.style)
        self.column += 1

    def down(self):
        self.row += 1
        while len(self.lines) <= self.row:
            self.lines.append([])
        self.top = max(self.top, self.row - ROWS + 1)

    def control(self, arguments, kind):
        numbers = [int(n) for n in arguments.strip("?").split(";") if n.isdigit()]
        first = numbers[0] if numbers else 0
        step = max(1, first)
        if kind == "m":
            self.colour(numbers or [0])
        elif kind == "K":
            line = self.lines[self.row]
            if first == 0:
                del line[self.column:]
            else:
                line.clear()
        elif kind == "J":
            if first == 0:
                del self.lines[self.row][self.column:]
                del self.lines[self.row + 1:]
            else:
                self.lines = self.lines[:self.top] + [[]]
                self.row, self.column = self.top, 0
        elif kind == "A":
            self.row = max(self.top, self.row - step)
        elif kind == "B":
            for _ in range(step):
                self.down()
        elif kind == "C":
            self.column = min(COLUMNS - 1, self.column + step)
        elif kind == "D":
            self.column = max(0, self.column - step)
        elif kind == "G":
            self.column = step - 1
        elif kind == "H":
            self.row, self.column = self.top + step - 1, (numbers[1] if len(numbers) > 1 else 1) - 1
            while len(self.lines) <= self.row:
                self.lines.append([])

    def colour(self, numbers):
        colour, bold, dim = self.style
        at = 0
        while at < len(numbers):
            n = numbers[at]
            if n == 0:
                colour, bold, dim = None, False, False
            elif n == 1:
                bold = True
            elif n == 2:
                dim = True
            elif n == 22:
                bold = dim = False
            elif 30 <= n <= 37:
                colour = PALETTE[n - 30]
            elif 90 <= n <= 97:
                colour = PALETTE[n - 82]
            elif n == 39:
                colour = None
            elif n == 38 and numbers[at + 1:at + 2] == [5] and at + 2 < len(numbers):
                colour, at = indexed(numbers[at + 2]), at + 2
            elif n == 38 and numbers[at + 1:at + 2] == [2] and at + 4 < len(numbers):
                colour, at = "#%02x%02x%02x" % tuple(numbers[at + 2:at + 5]), at + 4
            at += 1
        self.style = (colour, bold, dim)

    def screen(self):
        """The visible lines, each as text in the notation of the picture."""
        return tuple(svg_line(line) for line in self.lines[self.top:self.top + ROWS])


def indexed(n):
    """A colour of the 256-colour palette."""
    if n < 16:
        return PALETTE[n]
    if n >= 232:
        return "#%02x%02x%02x" % ((8 + 10 * (n - 232),) * 3)
    steps = [0, 95, 135, 175, 215, 255]
    n -= 16
    return "#%02x%02x%02x" % (steps[n // 36], steps[n // 6 % 6], steps[n % 6])


def svg_line(cells):
    """One line as spans of equal style; empty if nothing is seen."""
    while cells and cells[-1][0] == " ":
        cells = cells[:-1]
    spans, at = [], 0
    while at < len(cells):
        end, style = at, cells[at][1]
        while end < len(cells) and cells[end][1] == style:
            end += 1
        text = "".join(char for char, _ in cells[at:end])
        if text.strip():
            colour, bold, dim = style
            look = f' fill="{colour}"' if colour else ""
            look += ' font-weight="bold"' if bold else ""
            look += ' opacity="0.6"' if dim else ""
            spans.append(
                f'<tspan x="{at * CELL_WIDTH:.1f}" textLength="{len(text) * CELL_WIDTH:.1f}"'
                f'{look}>{html.escape(text, quote=False)}</tspan>'
            )
        at = end
    return "".join(spans)


def film(pieces):
    """The pictures to show and how long each stays, in seconds."""
    terminal, frames, shown_at = Terminal(), [], 0.0
    for at, (moment, text) in enumerate(pieces):
        terminal.feed(text)
        following = pieces[at + 1][0] if at + 1 < len(pieces) else None
        if following is not None and following - shown_at < FRAME_SECONDS:
            continue
        screen = terminal.screen()
        stays = LAST_PAUSE if following is None else min(following - shown_at, LONGEST_PAUSE)
        shown_at = following
        if frames and frames[-1][0] == screen:
            frames[-1][1] = min(frames[-1][1] + stays, max(LONGEST_PAUSE, stays))
        else:
            frames.append([screen, stays])
    return frames


def draw(frames, title):
    """The film as one SVG: pictures side by side, moved past a window."""
    rows = max(len(screen) for screen, _ in frames)
    width, height = COLUMNS * CELL_WIDTH + 2 * MARGIN, rows * CELL_HEIGHT + 2 * MARGIN + BAR
    total = sum(stays for _, stays in frames)
    names, pictures, keys, elapsed = {}, [], [], 0.0
    for index, (screen, stays) in enumerate(frames):
        used = []
        for row, line in enumerate(screen):
            if line:
                name = names.setdefault(line, f"l{len(names)}")
                used.append(f'<use href="#{name}" y="{row * CELL_HEIGHT}"/>')
        pictures.append(f'<g transform="translate({index * width:.0f})">{"".join(used)}</g>')
        keys.append(f"{elapsed / total * 100:.3f}%{{transform:translateX({-index * width:.0f}px)}}")
        elapsed += stays
    lines = "\n".join(f'<text id="{name}">{line}</text>' for line, name in names.items())
    last = -(len(frames) - 1) * width
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" \
width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{html.escape(title)}">
<style>
text{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;\
fill:{FOREGROUND};white-space:pre}}
.film{{animation:film {total:.2f}s step-end infinite}}
@keyframes film{{{"".join(keys)}100%{{transform:translateX({last:.0f}px)}}}}
@media (prefers-reduced-motion:reduce){{.film{{animation:none;transform:translateX({last:.0f}px)}}}}
</style>
<defs>
{lines}
</defs>
<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>
<circle cx="18" cy="16" r="5" fill="#e06c75"/><circle cx="36" cy="16" r="5" fill="#e5c07b"/>\
<circle cx="54" cy="16" r="5" fill="#98c379"/>
<svg x="{MARGIN}" y="{BAR + MARGIN}" width="{width - 2 * MARGIN:.0f}" \
height="{rows * CELL_HEIGHT}" overflow="hidden">
<g class="film"><g transform="translate(0,{CELL_HEIGHT - 5})">
{chr(10).join(pictures)}
</g></g>
</svg>
</svg>
"""


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default=os.path.join(here, "demo.svg"))
    parser.add_argument("--title", default="selvedge demo, recorded in a terminal")
    parser.add_argument("--shown", help="the command line to show; default: the one that is run")
    parser.add_argument("command", nargs="*", default=None)
    options = parser.parse_args()
    command = options.command or ["cargo", "run", "--quiet", "--release", "--", "demo"]
    shown = options.shown or " ".join(command).replace(" --quiet", "")
    pieces, status = record(command)
    if status != 0:
        sys.exit(f"{shown} ended with status {status}: not recorded")
    prompt = [(0.0, f"\x1b[92m$\x1b[0m \x1b[1m{shown}\x1b[0m\r\n")]
    frames = film(prompt + [(moment + 0.8, text) for moment, text in pieces])
    picture = draw(frames, options.title)
    with open(options.output, "w", encoding="utf-8") as out:
        out.write(picture)
    print(f"{options.output}: {len(frames)} pictures, {len(picture) // 1024} KiB")


if __name__ == "__main__":
    main()
