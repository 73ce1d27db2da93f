// Draws what is in view. Everything is SVG made anew for each view, so that the page is what the
// numbers say and nothing is left over from before.

/** More bars than this in view are drawn as counts: nobody can tell them apart any more. */
const MOST_BARS = 2500;
/** More arrows than this hide what they point at: hand-overs of the ordinary kind come last. */
const MOST_ARROWS = 160;
/** More points and arcs than this do not help anybody either. */
const MOST_POINTS = 700;

const at = (id) => document.getElementById(id);
const chart = at("chart"), axis = at("axis"), overview = at("overview");
let width = 1000;

const plotWidth = () => Math.max(50, width - SIZE.gutter - SIZE.right);
const x = (time) => SIZE.gutter + (time - view.from) * plotWidth() / (view.to - view.from);
const timeAt = (px) => view.from + (px - SIZE.gutter) * (view.to - view.from) / plotWidth();
const inView = (from, to) => to >= view.from && from <= view.to;
const n = (number) => Math.round(number * 10) / 10;
const clampX = (px) => Math.max(SIZE.gutter, Math.min(width - SIZE.right, px));

/** A rectangle of time in a lane, cut to what is in view. */
function box(from, to, top, height, attributes, least = 1.5) {
  const left = clampX(x(from)), right = clampX(x(to));
  return `<rect x="${n(left)}" y="${n(top)}" width="${n(Math.max(least, right - left))}" height="${n(height)}" ${attributes}/>`;
}

function drawLanes() {
  let out = "";
  if (SIZE.mesh > 0) {
    const budget = RUN.budgets[view.budget];
    out += `<g class="mesh-lane" data-lane="mesh"><rect class="lane" x="0" y="0" width="${width}" height="${SIZE.mesh - 4}" rx="5"/>`
      + `<text class="lane-name" x="10" y="20">whole mesh</text>`
      + `<text class="lane-note" x="10" y="35">${escapeText(budget.name.split("/").pop()).slice(0, 14)}</text>`
      + `<text class="lane-note" x="10" y="48">${escapeText(budget.unit)}</text></g>`;
  }
  RUN.nodes.forEach((name, node) => {
    const top = laneTop(node);
    const label = SIZE.lane < 12 && node % 5 !== 0 ? "" : `<text class="lane-name" x="10" y="${top + Math.min(SIZE.lane - 2, SIZE.pad + 13)}">${escapeText(name)}</text>`;
    out += `<g data-lane="${node}"><rect class="lane${node % 2 ? " odd" : ""}" x="0" y="${top}" width="${width}" height="${SIZE.lane - 1}" rx="${few ? 4 : 0}"/>${label}`;
    const wire = RUN.notes[node];
    if (few && wire) { out += `<text class="lane-note" x="10" y="${top + SIZE.pad + 27}">${escapeText(wire)}</text>`; }
    out += "</g>";
  });
  return out;
}

function steps() {
  const span = view.to - view.from, wanted = span / Math.max(3, plotWidth() / 105);
  const ladder = [];
  for (let unit = 1; unit < 1e6; unit *= 10) { ladder.push(unit, 2 * unit, 5 * unit); }
  for (const seconds of [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400]) {
    ladder.push(seconds * 1e6);
  }
  const step = ladder.find((one) => one >= wanted) ?? wanted;
  const times = [];
  for (let time = Math.ceil(view.from / step) * step; time <= view.to; time += step) { times.push(time); }
  return [step, times];
}

function drawAxis() {
  const [step, times] = steps();
  axis.innerHTML = times.map((time) => {
    const px = n(x(time));
    return `<line class="tick" x1="${px}" x2="${px}" y1="17" y2="24"/><text x="${px}" y="13" text-anchor="middle">${timeText(time, step)}</text>`;
  }).join("");
  return times.map((time) => `<line class="grid" x1="${n(x(time))}" x2="${n(x(time))}" y1="0" y2="${SIZE.chart}"/>`).join("");
}

/** The two sides of a partition lean to different sides. */
const HATCH = ["M0 7 7 0", "M0 0 7 7"];
const PATTERNS = FAULTS.map(([family]) => HATCH.map((path, side) =>
  `<pattern id="hatch-${family}-${side}" width="7" height="7" patternUnits="userSpaceOnUse">`
  + `<path class="f-${family}" d="${path}" style="fill:none;stroke:var(--c);stroke-width:.9"/></pattern>`).join("")).join("");

function drawFaults() {
  let back = "", names = "";
  const taken = [];
  for (const fault of faults) {
    if (!shown.fault(fault) || !inView(fault.from, fault.to)) { continue; }
    const key = `class="fault hit f-${fault.family}" data-k="fault" data-i="${fault.index}"`;
    let first = null;
    for (const [node, side] of fault.sides) {
      const top = laneTop(node);
      back += box(fault.from, fault.to, top, SIZE.lane - 1, key, 2);
      back += box(fault.from, fault.to, top, SIZE.lane - 1,
        `class="hatch" fill="url(#hatch-${fault.family}-${side % 2})"`, 2);
      first ??= node;
    }
    for (const edge of [fault.from, fault.to]) {
      if (edge < view.from || edge > view.to) { continue; }
      for (const [node] of fault.sides) {
        back += `<path class="fault-edge f-${fault.family}" d="M${n(x(edge))} ${laneTop(node)}v${SIZE.lane - 1}"/>`;
      }
    }
    const left = clampX(x(fault.from)), room = clampX(x(fault.to)) - left;
    const length = fault.label.length * 5.6 + 10;
    if (first === null || !few || room < 30) { continue; }
    const top = laneTop(first) + 11;
    const clash = taken.some((one) => one.top === top && one.left < left + length && left < one.right);
    if (!clash) {
      taken.push({ top, left, right: left + length });
      const fits = Math.floor((room + 40) / 5.6);
      const label = fault.label.length > fits ? fault.label.slice(0, fits) + "…" : fault.label;
      names += `<text class="fault-name f-${fault.family}" x="${n(left + 4)}" y="${top}">${escapeText(label)}</text>`;
    }
  }
  return [back, names];
}

/** A step curve of one value. */
function stepPath(points, value, y) {
  let path = "", before = null;
  for (const point of points) {
    const px = n(clampX(x(point.at))), py = n(y(point[value]));
    path += before === null ? `M${px} ${py}` : `H${px}V${py}`;
    before = py;
  }
  return before === null ? "" : path + `H${n(width - SIZE.right)}`;
}

function pointsInView(points) {
  let first = 0;
  while (first + 1 < points.length && points[first + 1].at <= view.from) { first += 1; }
  let last = points.length;
  while (last > 0 && points[last - 1].at > view.to) { last -= 1; }
  return points.slice(first, Math.max(first, last));
}

function drawSeries() {
  if (RUN.budgets.length === 0 || view.hidden.has("budget")) { return ""; }
  let out = "";
  const budget = RUN.budgets[view.budget];
  const own = series.filter((one) => one.budget === view.budget);
  let most = 1;
  for (const one of own) {
    if (one.node >= 0) { for (const point of one.points) { most = Math.max(most, point.ceiling, point.hw); } }
  }
  for (const one of own) {
    const mesh = one.node < 0;
    if (!mesh && SIZE.spark === 0) { continue; }
    const height = mesh ? SIZE.mesh - 20 : SIZE.spark;
    const base = mesh ? SIZE.mesh - 8 : laneTop(one.node) + SIZE.lane - 1 - SIZE.pad / 2;
    let scale = most;
    if (mesh) {
      scale = budget.limit;
      for (const point of one.points) { scale = Math.max(scale, point.spent, point.hw); }
    }
    const y = (value) => base - Math.min(1, value / scale) * height;
    const points = pointsInView(one.points);
    if (points.length === 0) { continue; }
    const spent = stepPath(points, "spent", y);
    const left = n(clampX(x(points[0].at)));
    out += `<g data-series="${mesh ? "mesh" : one.node}">`
      + `<path class="series-spent" d="${spent}V${base}H${left}Z"/>`
      + `<path class="series-hw" d="${stepPath(points, "hw", y)}"/>`;
    if (mesh) {
      const line = n(y(budget.limit));
      out += `<line class="series-limit" x1="${SIZE.gutter}" x2="${width - SIZE.right}" y1="${line}" y2="${line}"/>`
        + `<text class="limit-name" x="${width - SIZE.right - 4}" y="${line - 3}" text-anchor="end">limit ${countText(budget.limit)}</text>`;
    } else {
      out += `<path class="series-ceiling" d="${stepPath(points, "ceiling", y)}"/>`;
    }
    out += "</g>";
  }
  return out;
}

/** Counts per pixel column, for views in which single requests cannot be told apart. */
function drawDensity() {
  const wide = Math.max(RUN.density.bucket, (view.to - view.from) / (plotWidth() / 4));
  const merge = Math.max(1, Math.round(wide / RUN.density.bucket));
  const lanes = new Map();
  let most = 1;
  for (const [node, flat] of RUN.density.rows) {
    const sums = new Map();
    for (let index = 0; index < flat.length; index += 3) {
      if (view.hidden.has(OUTCOMES[flat[index + 1]][0])) { continue; }
      const bucket = Math.floor(flat[index] / merge);
      if (!inView(bucket * merge * RUN.density.bucket, (bucket + 1) * merge * RUN.density.bucket)) { continue; }
      const counts = sums.get(bucket) ?? new Array(OUTCOMES.length + 1).fill(0);
      counts[flat[index + 1]] += flat[index + 2];
      counts[OUTCOMES.length] += flat[index + 2];
      most = Math.max(most, counts[OUTCOMES.length]);
      sums.set(bucket, counts);
    }
    lanes.set(node, sums);
  }
  let out = "";
  for (const [node, sums] of lanes) {
    const base = barTop(node, 0) + SIZE.bars - SIZE.gap;
    for (const [bucket, counts] of sums) {
      const from = bucket * merge * RUN.density.bucket, to = from + merge * RUN.density.bucket;
      let top = base;
      OUTCOMES.forEach(([name, text], index) => {
        if (counts[index] === 0) { return; }
        const height = Math.max(1, counts[index] / most * SIZE.bars);
        top -= height;
        out += box(from, to - (to - from) * .12, top, height,
          `class="density o-${name}" data-k="density" data-t="${escapeText(`${countText(counts[index])} × ${text} at ${nodeName(node)}`)}" data-i="${from}"`);
      });
    }
  }
  return out;
}

function arrow(time, fromNode, fromRow, toNode, toRow, kind) {
  const start = barTop(fromNode, fromRow) + SIZE.bar / 2, end = barTop(toNode, toRow) + SIZE.bar / 2;
  const px = x(time), bulge = kind === "resume" ? 16 : 7, down = end > start ? 1 : -1;
  return `<path class="arrow ${kind}" d="M${n(px)} ${n(start)}C${n(px + bulge)} ${n(start)} ${n(px + bulge)} ${n(end)} ${n(px + 3)} ${n(end)}"/>`
    + `<path class="head ${kind}" d="M${n(px + 1)} ${n(end)}l5-${2.6}v5.2z" transform="rotate(${down > 0 ? 8 : -8} ${n(px)} ${n(end)})"/>`;
}

function drawRequests() {
  const visible = requests.filter((one) => inView(one.from, one.to) && shown.request(one));
  const crowded = visible.length > MOST_BARS
    || (RUN.undrawn > 0 && view.to - view.from > RUN.span / 12);
  if (crowded) { return [drawDensity(), "", visible.length]; }
  let bars = "", arrows = "", resumes = "";
  const handOffs = visible.filter((one) => one.legs.some((leg) => leg.node !== one.ingest)).length <= MOST_ARROWS;
  for (const request of visible) {
    const elsewhere = request.legs.some((leg) => leg.node !== request.ingest);
    const key = `data-k="request" data-i="${request.index}"`;
    const chosen = view.chosen === request ? " chosen" : "";
    bars += box(request.from, request.to, barTop(request.ingest, request.row), SIZE.bar,
      `rx="2" class="bar o-${request.outcome}${elsewhere ? " hollow" : ""}${chosen}" ${key}`);
    let before = { node: request.ingest, row: request.row };
    request.legs.forEach((leg, index) => {
      const row = leg.node === request.ingest ? request.row : leg.row;
      if (inView(leg.from, leg.to) && elsewhere) {
        bars += box(leg.from, leg.to, barTop(leg.node, row), SIZE.bar,
          `rx="2" class="bar leg o-${request.outcome}${chosen}" ${key}`);
      }
      const moves = leg.node !== before.node || index > 0;
      if (moves && leg.from >= view.from && leg.from <= view.to) {
        if (index > 0) {
          resumes += arrow(leg.from, before.node, before.row, leg.node, row, "resume");
        } else if (handOffs) {
          arrows += arrow(leg.from, before.node, before.row, leg.node, row, "handoff");
        }
      }
      before = { node: leg.node, row };
    });
  }
  return [bars, arrows + resumes, 0];
}

function drawTransfers() {
  let out = "", drawn = 0;
  const limit = RUN.budgets.length > 0 ? Math.max(1, RUN.budgets[Math.max(0, view.budget)].limit) : 1;
  const height = (node) => laneTop(node) + SIZE.lane - SIZE.pad - SIZE.spark / 2;
  for (const transfer of transfers) {
    const end = transfer.got < 0 ? transfer.sent : transfer.got;
    if (!shown.transfer(transfer) || !inView(transfer.sent, end) || drawn >= MOST_POINTS) { continue; }
    drawn += 1;
    const [x1, x2, y1, y2] = [x(transfer.sent), x(end), height(transfer.from), height(transfer.to)];
    const bow = Math.min(46, 10 + Math.abs(y2 - y1) / 5);
    const weight = 1 + Math.min(3, Math.sqrt(transfer.amount / limit) * 6);
    out += `<path class="arc${transfer.got < 0 ? " lost" : ""}" stroke-width="${n(weight)}" data-k="transfer" data-i="${transfer.index}" `
      + `d="M${n(x1)} ${n(y1)}C${n(x1 + bow)} ${n(y1)} ${n(x2 + bow)} ${n(y2)} ${n(x2)} ${n(y2)}"/>`;
    if (transfer.got >= 0) { out += `<circle class="arc-end" cx="${n(x2)}" cy="${n(y2)}" r="${n(1 + weight / 2)}"/>`; }
  }
  return out;
}

function drawPoints() {
  let out = "";
  let drawn = 0;
  for (const mark of marks) {
    if (!shown.mark(mark) || !inView(mark.at, mark.at) || drawn >= MOST_POINTS) { continue; }
    drawn += 1;
    const top = mark.node < 0 ? 4 : laneTop(mark.node) + (few ? 14 : 1);
    out += `<circle class="mark hit" cx="${n(x(mark.at))}" cy="${top + 3}" r="${few ? 3 : 2}" data-k="mark" data-i="${mark.index}"/>`;
  }
  for (const violation of violations) {
    if (!shown.violation(violation) || !inView(violation.at, violation.at)) { continue; }
    const px = n(x(violation.at)), py = violation.node < 0 ? 10 : laneMiddle(violation.node);
    out += `<line class="violation-line" x1="${px}" x2="${px}" y1="0" y2="${SIZE.chart}"/>`
      + `<path class="violation" d="M${px} ${n(py - 9)}l9 9-9 9-9-9z" data-k="violation" data-i="${violation.index}"/>`;
  }
  return out;
}

function drawQuiet() {
  if (RUN.quiet < view.from || RUN.quiet > view.to) {
    return RUN.quiet <= view.from ? box(view.from, view.to, 0, SIZE.chart, `class="quiet"`) : "";
  }
  const px = n(x(RUN.quiet));
  return box(RUN.quiet, view.to, 0, SIZE.chart, `class="quiet"`)
    + `<line class="quiet-line" x1="${px}" x2="${px}" y1="0" y2="${SIZE.chart}"/>`;
}

function drawOverview() {
  const left = SIZE.gutter, wide = plotWidth(), px = (time) => left + time * wide / RUN.span;
  let out = `<rect class="ov-back" x="${left}" y="4" width="${wide}" height="32" rx="4"/>`;
  for (const fault of faults) {
    if (!shown.fault(fault)) { continue; }
    out += `<rect class="fault f-${fault.family}" x="${n(px(fault.from))}" y="4" width="${n(Math.max(1.5, px(fault.to) - px(fault.from)))}" height="32" style="fill:var(--c);opacity:.3"/>`;
  }
  const columns = new Map();
  const merge = Math.max(1, Math.ceil(RUN.span / RUN.density.bucket / 240));
  let most = 1;
  for (const [, flat] of RUN.density.rows) {
    for (let index = 0; index < flat.length; index += 3) {
      const name = OUTCOMES[flat[index + 1]][0];
      if (view.hidden.has(name)) { continue; }
      const bucket = Math.floor(flat[index] / merge), counts = columns.get(bucket) ?? [0, 0];
      counts[0] += flat[index + 2];
      if (name !== "done" && name !== "resumed") { counts[1] += flat[index + 2]; }
      columns.set(bucket, counts);
      most = Math.max(most, counts[0]);
    }
  }
  const step = merge * RUN.density.bucket;
  for (const [bucket, [all, bad]] of columns) {
    const wideBar = n(Math.max(1, px(step) - left - .6));
    const draw = (count, kind) => count === 0 ? "" : `<rect class="ov-bar ${kind}" x="${n(px(bucket * step))}" y="${n(35 - count / most * 29)}" width="${wideBar}" height="${n(count / most * 29)}"/>`;
    out += draw(all, "") + draw(bad, "bad");
  }
  for (const violation of violations) {
    if (shown.violation(violation)) {
      out += `<path class="violation" d="M${n(px(violation.at))} 13l6 6-6 6-6-6z" data-k="violation" data-i="${violation.index}"/>`;
    }
  }
  const from = px(view.from), to = px(view.to);
  out += `<rect class="ov-off" x="${left}" y="4" width="${n(from - left)}" height="32"/>`
    + `<rect class="ov-off" x="${n(to)}" y="4" width="${n(left + wide - to)}" height="32"/>`
    + `<rect class="ov-window" x="${n(from)}" y="3" width="${n(Math.max(3, to - from))}" height="34" rx="3"/>`;
  overview.innerHTML = out;
}

function draw() {
  width = Math.max(320, chart.parentElement.clientWidth
    - parseFloat(getComputedStyle(chart.parentElement).paddingLeft) * 2);
  for (const [svg, height] of [[chart, SIZE.chart], [axis, 24], [overview, 40]]) {
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.style.height = height + "px";
  }
  const grid = drawAxis();
  const [back, names] = drawFaults();
  const [bars, arrows, counted] = drawRequests();
  chart.innerHTML = `<defs><clipPath id="plot"><rect x="${SIZE.gutter}" y="0" width="${plotWidth()}" height="${SIZE.chart}"/></clipPath>${PATTERNS}</defs>`
    + `<g id="lanes">${drawLanes()}</g><g clip-path="url(#plot)">`
    + `<g id="quiet">${drawQuiet()}</g><g id="grid">${grid}</g><g id="faults">${back}</g>`
    + `<g id="series">${drawSeries()}</g><g id="bars">${bars}</g><g id="arrows">${arrows}</g>`
    + `<g id="arcs">${drawTransfers()}</g><g id="points">${drawPoints()}</g><g id="names">${names}</g>`
    + `<line id="cursor" class="cursor" y1="0" y2="${SIZE.chart}" visibility="hidden"/></g>`;
  drawOverview();
  const elided = at("elided");
  const notes = [];
  if (counted > 0 || (bars.includes('class="density') && RUN.undrawn > 0)) {
    notes.push("Requests are counted here, not drawn one by one: zoom in to see them.");
  }
  if (RUN.undrawn > 0) {
    notes.push(`${countText(RUN.undrawn)} ordinary requests of this run are in the counts only.`);
  }
  elided.textContent = notes.join(" ");
  elided.hidden = notes.length === 0;
  document.body.dataset.from = Math.round(view.from);
  document.body.dataset.to = Math.round(view.to);
}
