"""The timeline of a simulated run in a real browser: what is drawn, and what can be done with it.

The argument is the file that `selvedge sim run --html` wrote. The numbers to compare with are those
in the file itself.
"""

import json
import os
import re
import sys
import tempfile

from browser import Browser

LABELS = ["done", "resumed", "quota", "refused", "failed", "left", "open"]
DATA = re.compile(r'(<script type="application/json" id="run">)(.*?)(</script>)', re.DOTALL)


def check(name, holds, seen=""):
    if not holds:
        sys.exit(f"FAILED {name}: {seen}")
    print(f"ok {name}")


def count(browser, css):
    return browser.run("return document.querySelectorAll(arguments[0]).length", css)


def view(browser):
    return browser.run("return [Number(document.body.dataset.from), Number(document.body.dataset.to)]")


def place(browser, css):
    """The middle of an element that can be pointed at, or None: the topmost of its kind."""
    return browser.run(
        "for (const one of document.querySelectorAll(arguments[0])) {"
        "  const box = one.getBoundingClientRect();"
        "  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];"
        "  if (document.elementFromPoint(x, y) === one) { return [x, y]; }"
        "} return null", css)


def whole(browser, run):
    """What the page shows at first: everything there is in the file."""
    lanes = len(run["nodes"]) + (1 if run["budgets"] else 0)
    check("a lane per node", count(browser, "#lanes [data-lane]") == lanes)
    spans = sum(len(fault[4]) for fault in run["faults"])
    check("a shaded span per fault and node", count(browser, "#faults .fault") == spans, spans)
    hatched = browser.run("return new Set([...document.querySelectorAll('#faults .hatch')]"
                          ".map((one) => one.getAttribute('fill'))).size")
    check("sides of a partition differ", hatched >= len({side for f in run["faults"] for _, side in f[4]}))
    drawn = count(browser, "#bars .bar:not(.leg)") + count(browser, "#bars .density")
    check("requests as bars", drawn > 0 or not run["requests"], drawn)
    if run["transfers"]:
        check("transfers as arcs", count(browser, "#arcs .arc") > 0)
        check("transfers have a colour", browser.run(
            "return getComputedStyle(document.querySelector('#arcs .arc')).stroke") != "none")
    if run["series"]:
        check("a curve of the whole mesh", count(browser, "#series [data-series=mesh] path") >= 2)
        check("its limit", count(browser, "#series .series-limit") == 1)
    title = browser.run("return document.querySelector('h1').textContent")
    check("the title", title.startswith(run["title"]), title)
    check("the hash", dict(run["figures"])["hash"] in browser.run("return document.body.textContent"))
    wide = browser.run("return document.documentElement.scrollWidth <= innerWidth")
    check("it fits a laptop's width", wide)


def zooming(browser, run):
    span = run["span"]
    check("all of it at first", view(browser) == [0, span], view(browser))
    ticks = browser.run("return document.getElementById('axis').textContent")
    browser.click("#zoom-in")
    one = view(browser)
    check("the button zooms in", abs((one[1] - one[0]) - span / 2) < 2, one)
    check("the axis follows", browser.run("return document.getElementById('axis').textContent") != ticks)
    browser.press("+")
    two = view(browser)
    check("the key zooms in", two[1] - two[0] < one[1] - one[0], two)
    browser.press("\ue014")
    moved = view(browser)
    check("an arrow key moves on", moved[0] > two[0] and abs(moved[1] - moved[0] - two[1] + two[0]) <= 2, moved)
    box = browser.run("const box = document.getElementById('chart').getBoundingClientRect();"
                      "return [box.x, box.y, box.width, Math.min(box.height, innerHeight - box.y)]")
    x, y = box[0] + box[2] / 2, box[1] + min(box[3], 200) / 2
    before = view(browser)
    browser.wheel(x, y, -240, hold_ctrl=True)
    wheeled = view(browser)
    check("the wheel zooms in", wheeled[1] - wheeled[0] < before[1] - before[0], wheeled)
    browser.point(("to", x, y), "down", ("to", x - 120, y), ("to", x - 200, y), "up")
    dragged = view(browser)
    check("dragging moves on", dragged[0] > wheeled[0], dragged)
    browser.press("0")
    check("0 shows the whole run", view(browser) == [0, span], view(browser))
    strip = browser.run("const box = document.getElementById('overview').getBoundingClientRect();"
                        "return [box.x, box.y + box.height / 2, box.width]")
    left, middle = strip[0] + strip[2] * 0.4, strip[1]
    browser.point(("to", left, middle), "down", ("to", left + 60, middle), ("to", left + 180, middle), "up")
    chosen = view(browser)
    check("the overview chooses a span", 0 < chosen[0] < chosen[1] < span, chosen)


def single_bars(browser, run):
    """Zooms to the middle third of what was asked for, until requests are drawn one by one."""
    for _ in range(12):
        if count(browser, "#bars .density") == 0 and count(browser, "#bars .bar") > 0:
            return
        browser.click("#zoom-in")
    check("close up, requests are drawn one by one", False, view(browser))


def filters(browser, run):
    browser.press("0")
    present = [LABELS[index] for index, count in enumerate(run["outcomes"]) if count > 0]
    buttons = browser.run("return [...document.querySelectorAll('#legend button')].map((b) => b.dataset.kind)")
    check("the legend names what there is", [b for b in buttons if b in LABELS] == present, buttons)
    if not present:
        return
    single_bars(browser, run)
    for kind in present:
        before = count(browser, f"#bars .o-{kind}")
        if before == 0:
            continue
        browser.click(f'#legend [data-kind="{kind}"]')
        check(f"the filter hides '{kind}'", count(browser, f"#bars .o-{kind}") == 0)
        pressed = browser.run(f"return document.querySelector('[data-kind=\"{kind}\"]').ariaPressed")
        check("and says so", pressed == "false", pressed)
        browser.click(f'#legend [data-kind="{kind}"]')
        check(f"and shows '{kind}' again", count(browser, f"#bars .o-{kind}") == before)
    family = next((b for b in buttons if b.startswith("fault-")), None)
    browser.press("0")
    if family:
        before = count(browser, "#faults .fault")
        browser.click(f'#legend [data-kind="{family}"]')
        check("the filter hides faults", count(browser, "#faults .fault") < before)
        browser.click(f'#legend [data-kind="{family}"]')


def details(browser, run):
    if not run["requests"]:
        return
    browser.press("0")
    single_bars(browser, run)
    where = place(browser, "#bars .bar")
    check("a bar can be pointed at", where is not None)
    browser.point(("to", *where))
    tip = browser.run("const tip = document.getElementById('tip'); return tip.hidden ? '' : tip.textContent")
    check("pointing at it says what it is", "request" in tip and "came in" in tip, tip)
    browser.point(("to", *where), "down", "up")
    card = browser.run("const d = document.getElementById('details'); return d.hidden ? '' : d.textContent")
    check("a click keeps it", "request" in card, card)
    check("and marks it", count(browser, "#bars .chosen") >= 1)
    browser.press("\ue00c")
    check("Esc closes it", browser.run("return document.getElementById('details').hidden"))


def schemes(browser):
    seen = {}
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        seen[scheme] = browser.run("return getComputedStyle(document.body).backgroundColor")
    levels = {name: sum(map(int, re.findall(r"\d+", colour)[:3])) for name, colour in seen.items()}
    check("light is light and dark is dark", levels["light"] > 650 and levels["dark"] < 120, seen)


def quiet(browser):
    check("nothing was fetched", browser.run("return performance.getEntriesByType('resource').length") == 0)
    log = browser.log()
    check("the console is silent", log == [], log)


def broken(browser, page, run):
    """The same run with a violation written into it: it must be seen and found."""
    at = run["span"] // 2
    run = {**run, "violations": [[at, 0, "Q3", "It holds that this is a test. Seen:", "a <b>test</b>"]]}
    text = json.dumps(run, separators=(",", ":")).replace("<", "\\u003c")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "broken.html")
        with open(path, "w", encoding="utf-8") as file:
            file.write(DATA.sub(lambda found: found.group(1) + text + found.group(3), page))
        browser.open(path)
        check("a violation is a point in its lane", count(browser, "#points .violation") == 1)
        verdict = browser.run("return document.getElementById('verdict').textContent")
        check("the verdict counts it", verdict == "1 violation", verdict)
        browser.click("#verdict")
        browser.click("[data-visit='0']")
        card = browser.run("return document.getElementById('details').textContent")
        check("it can be visited", "Q3" in card and "a <b>test</b>" in card, card)
        shown = view(browser)
        check("and comes into view", shown[0] < at < shown[1] and shown != [0, run["span"]], shown)
        quiet(browser)


def main():
    path = sys.argv[1]
    with open(path, encoding="utf-8") as file:
        page = file.read()
    run = json.loads(DATA.search(page).group(2))
    with Browser() as browser:
        browser.open(path)
        check("the page is drawn", browser.run("return document.body.dataset.ready") == "yes", browser.log())
        whole(browser, run)
        zooming(browser, run)
        filters(browser, run)
        details(browser, run)
        schemes(browser)
        quiet(browser)
        broken(browser, page, run)


main()
