// Mouse, keys, filters, and the cards that say what something is.

const tip = at("tip"), details = at("details");
let waiting = false;

/** Draws once before the next picture, however many changes there were. */
function redraw() {
  if (waiting) { return; }
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

/** Shows a span; never less than a hundred microseconds, never more than the run. */
function show(from, to) {
  const span = Math.min(RUN.span, Math.max(100, to - from));
  view.from = Math.max(0, Math.min(RUN.span - span, from));
  view.to = view.from + span;
  redraw();
}
function zoom(factor, around = (view.from + view.to) / 2) {
  const span = Math.min(RUN.span, Math.max(100, (view.to - view.from) * factor));
  const part = (around - view.from) / (view.to - view.from);
  show(around - part * span, around + (1 - part) * span);
}
function move(part) {
  const by = (view.to - view.from) * part;
  show(view.from + by, view.to + by);
}

const rows = (pairs) => "<dl>" + pairs.filter(([, value]) => value !== "" && value !== undefined)
  .map(([name, value]) => `<dt>${escapeText(name)}</dt><dd>${escapeText(value)}</dd>`).join("") + "</dl>";
const card = (css, title, pairs, text = "") =>
  `<div class="card"><h2 class="${css}"><i></i>${escapeText(title)}</h2>${rows(pairs)}${text ? `<p>${escapeText(text)}</p>` : ""}</div>`;
const budgetName = (budget) => RUN.budgets[budget]?.name ?? "";

/** The card of something that was drawn. */
function cardOf(kind, index, element) {
  switch (kind) {
    case "request": {
      const one = requests[index];
      const route = one.legs.map((leg) => `${nodeName(leg.node)} from ${timeText(leg.from)} for ${spanText(leg.to - leg.from)}`);
      return card("o-" + one.outcome, `request ${one.id}`, [
        ["outcome", word(OUTCOMES, one.outcome)],
        ["tenant", RUN.tenants[one.tenant] ?? ""],
        ["came in", `${nodeName(one.ingest)} at ${timeText(one.from)}`],
        ["took", spanText(one.to - one.from)],
        ["tokens", one.tokens > 0 ? countText(one.tokens) : ""],
        ...route.map((text, at) => [at === 0 ? "answered by" : "then by", text]),
      ], one.note);
    }
    case "fault": {
      const one = faults[index];
      const side = (which) => one.sides.filter(([, s]) => s === which).map(([node]) => nodeName(node)).join(", ");
      const sides = one.sides.some(([, s]) => s === 1) ? [["one side", side(0)], ["other side", side(1)]]
        : [["nodes", side(0)]];
      return card("f-" + one.family, one.label, [
        ["from", timeText(one.from)], ["until", timeText(one.to)],
        ["lasts", spanText(one.to - one.from)], ...sides,
      ]);
    }
    case "transfer": {
      const one = transfers[index];
      return card("", `${countText(one.amount)} ${RUN.budgets[one.budget]?.unit ?? ""} of rights`, [
        ["budget", budgetName(one.budget)],
        ["from", `${nodeName(one.from)} at ${timeText(one.sent)}`],
        ["to", nodeName(one.to)],
        ["arrived", one.got < 0 ? "not in this run" : `${timeText(one.got)}, after ${spanText(one.got - one.sent)}`],
      ]);
    }
    case "mark": {
      const one = marks[index];
      return card("", one.kind, [["at", timeText(one.at)], ["node", nodeName(one.node)]], one.text);
    }
    case "violation": {
      const one = violations[index];
      return card("o-failed", one.id, [["at", timeText(one.at)], ["node", nodeName(one.node)]],
        `${one.sentence} ${one.what}`);
    }
    case "density":
      return card("", timeText(Number(index)), [], element.dataset.t);
    default:
      return "";
  }
}

function openDetails(html) {
  at("details-body").innerHTML = html;
  details.hidden = false;
}
function closeDetails() {
  details.hidden = true;
  view.chosen = null;
  redraw();
}

function hover(event) {
  const element = event.target.closest?.("[data-k]");
  const time = timeAt(event.clientX - chart.getBoundingClientRect().left);
  const cursor = at("cursor");
  if (cursor && time >= view.from && time <= view.to) {
    cursor.setAttribute("x1", x(time));
    cursor.setAttribute("x2", x(time));
    cursor.setAttribute("visibility", "visible");
  }
  if (!element) { tip.hidden = true; return; }
  tip.innerHTML = cardOf(element.dataset.k, Number(element.dataset.i), element);
  tip.hidden = false;
  const { offsetWidth, offsetHeight } = tip;
  tip.style.left = Math.min(event.clientX + 14, innerWidth - offsetWidth - 8) + "px";
  tip.style.top = (event.clientY + 18 + offsetHeight > innerHeight
    ? event.clientY - offsetHeight - 12 : event.clientY + 18) + "px";
}

/** Jumps to a violation and says what it is. */
function visit(violation) {
  const span = Math.min(RUN.span, Math.max(2e6, (view.to - view.from) / 4));
  show(violation.at - span / 2, violation.at + span / 2);
  openDetails(cardOf("violation", violation.index));
}
function listViolations() {
  const items = violations.map((one) =>
    `<li><button type="button" data-visit="${one.index}">${escapeText(timeText(one.at))} ${escapeText(one.id)}</button></li>`);
  openDetails(`<div class="card"><h2 class="o-failed"><i></i>What must not happen, and did</h2><ol>${items.join("")}</ol></div>`);
}
function step(direction) {
  const stops = (violations.length > 0 ? violations.map((one) => one.at) : faults.map((one) => one.from))
    .toSorted((a, b) => a - b);
  const middle = (view.from + view.to) / 2;
  const next = direction > 0 ? stops.find((time) => time > middle + 1)
    : stops.findLast((time) => time < middle - 1);
  if (next !== undefined) {
    const span = Math.min(view.to - view.from, RUN.span / 4);
    show(next - span / 2, next + span / 2);
  }
}

function listen() {
  let drag = null;
  chart.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) { return; }
    drag = { px: event.clientX, from: view.from, to: view.to, moved: false };
    chart.setPointerCapture(event.pointerId);
  });
  chart.addEventListener("pointermove", (event) => {
    if (!drag) { hover(event); return; }
    const by = (event.clientX - drag.px) * (drag.to - drag.from) / plotWidth();
    if (Math.abs(event.clientX - drag.px) > 3) {
      drag.moved = true;
      chart.classList.add("moving");
      show(drag.from - by, drag.to - by);
    }
  });
  chart.addEventListener("pointerup", (event) => {
    chart.classList.remove("moving");
    const element = document.elementFromPoint(event.clientX, event.clientY)?.closest?.("[data-k]");
    if (drag && !drag.moved && element) {
      view.chosen = element.dataset.k === "request" ? requests[Number(element.dataset.i)] : null;
      openDetails(cardOf(element.dataset.k, Number(element.dataset.i), element));
      redraw();
    }
    drag = null;
  });
  chart.addEventListener("pointercancel", () => { drag = null; });
  chart.addEventListener("pointerleave", () => { tip.hidden = true; });
  chart.addEventListener("dblclick", (event) =>
    zoom(.35, timeAt(event.clientX - chart.getBoundingClientRect().left)));
  chart.addEventListener("wheel", (event) => {
    const scrolls = document.documentElement.scrollHeight > innerHeight + 4;
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (sideways || event.shiftKey) {
      event.preventDefault();
      move((sideways ? event.deltaX : event.deltaY) / plotWidth());
    } else if (event.ctrlKey || event.metaKey || !scrolls) {
      event.preventDefault();
      zoom(Math.exp(event.deltaY * .0025), timeAt(event.clientX - chart.getBoundingClientRect().left));
    }
  }, { passive: false });

  let brush = null;
  const overviewTime = (event) => Math.max(0, Math.min(RUN.span,
    (event.clientX - overview.getBoundingClientRect().left - SIZE.gutter) * RUN.span / plotWidth()));
  overview.addEventListener("pointerdown", (event) => {
    brush = overviewTime(event);
    overview.setPointerCapture(event.pointerId);
  });
  overview.addEventListener("pointermove", (event) => {
    if (brush !== null) {
      const now = overviewTime(event);
      if (Math.abs(now - brush) > RUN.span / 300) { show(Math.min(brush, now), Math.max(brush, now)); }
    }
  });
  overview.addEventListener("pointerup", (event) => {
    if (brush !== null && Math.abs(overviewTime(event) - brush) <= RUN.span / 300) {
      const half = (view.to - view.from) / 2;
      show(brush - half, brush + half);
    }
    brush = null;
  });

  addEventListener("keydown", (event) => {
    if (event.target.closest?.("select") || event.ctrlKey || event.metaKey || event.altKey) { return; }
    const actions = {
      ArrowLeft: () => move(-.2), ArrowRight: () => move(.2), "+": () => zoom(.6), "=": () => zoom(.6),
      "-": () => zoom(1 / .6), "0": () => show(0, RUN.span), Home: () => show(0, RUN.span),
      n: () => step(1), p: () => step(-1), Escape: closeDetails, "?": toggleKeys,
    };
    const action = actions[event.key];
    if (action) {
      event.preventDefault();
      action();
    }
  });
  at("zoom-in").onclick = () => zoom(.5);
  at("zoom-out").onclick = () => zoom(2);
  at("zoom-fit").onclick = () => show(0, RUN.span);
  at("help").onclick = toggleKeys;
  at("close").onclick = closeDetails;
  details.addEventListener("click", (event) => {
    const index = event.target.closest("[data-visit]")?.dataset.visit;
    if (index !== undefined) { visit(violations[Number(index)]); }
  });
  addEventListener("resize", redraw);
}
function toggleKeys() {
  at("keys").hidden = !at("keys").hidden;
  at("help").setAttribute("aria-expanded", String(!at("keys").hidden));
}

/** A button per kind that occurs in this run; pressed means shown. */
function fillLegend() {
  const kinds = [];
  for (const [name, text] of OUTCOMES) {
    const count = RUN.outcomes[OUTCOMES.findIndex(([one]) => one === name)];
    if (count > 0) { kinds.push([name, text, count, "", `var(--${name})`]); }
  }
  for (const [name, text] of FAULTS) {
    const count = faults.filter((one) => one.family === name).length;
    if (count > 0) { kinds.push(["fault-" + name, text, count, "hollow", `var(--${name})`]); }
  }
  if (RUN.budgets.length > 0) { kinds.push(["budget", "rights and spending", "", "hollow", "var(--ceiling)"]); }
  if (transfers.length > 0) { kinds.push(["transfer", "transfer of rights", RUN.transferred, "arc", "var(--transfer)"]); }
  if (marks.length > 0) { kinds.push(["mark", "events", marks.length, "hollow", "var(--soft)"]); }
  if (violations.length > 0) { kinds.push(["violation", "violation", violations.length, "diamond", "var(--violation)"]); }
  for (const [name, text, count, shape, colour] of kinds) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.kind = name;
    button.setAttribute("aria-pressed", "true");
    button.innerHTML = `<i class="${shape}" style="--c:${colour}"></i>${escapeText(text)} <b>${typeof count === "number" ? countText(count) : ""}</b>`;
    button.onclick = () => {
      const hide = !view.hidden.has(name);
      view.hidden[hide ? "add" : "delete"](name);
      button.setAttribute("aria-pressed", String(!hide));
      redraw();
    };
    at("legend").append(button);
  }
}

function choice(id, names, value, all, chosen) {
  if (names.length < 2) { return; }
  const select = at(id);
  const options = names.map((name, index) => [index, name]);
  if (all) { options.unshift([-1, all]); }
  select.innerHTML = options.map(([key, name]) => `<option value="${key}">${escapeText(name)}</option>`).join("");
  select.value = String(value);
  select.onchange = () => { chosen(Number(select.value)); redraw(); };
  at(id + "-choice").hidden = false;
}

function begin() {
  at("title").innerHTML = `${escapeText(RUN.title)}<small>${RUN.title.startsWith("seed ") ? "" : `seed ${escapeText(RUN.seed)}, `}${RUN.nodes.length} nodes</small>`;
  at("story").textContent = RUN.story;
  const verdict = at("verdict");
  if (violations.length === 0) {
    verdict.className = "good";
    verdict.textContent = "every invariant held";
  } else {
    verdict.className = "bad";
    verdict.textContent = `${violations.length} violation${violations.length > 1 ? "s" : ""}`;
    verdict.onclick = listViolations;
  }
  at("figures").innerHTML = RUN.figures.map(([name, value]) =>
    `<div><dt>${escapeText(name)}</dt><dd${name === "hash" ? ' class="hash"' : ""}>${escapeText(typeof value === "number" ? countText(value) : value)}</dd></div>`).join("");
  fillLegend();
  choice("budget", RUN.budgets.map((one) => `${one.name} (${one.unit})`), view.budget, "", (value) => { view.budget = value; });
  choice("tenant", RUN.tenants, view.tenant, "all", (value) => { view.tenant = value; });
  listen();
  draw();
  document.body.dataset.ready = "yes";
}
begin();
