// What the page knows: the run as it was written into the file, and what follows from it once.

const RUN = JSON.parse(document.getElementById("run").textContent);
const SVG = "http://www.w3.org/2000/svg";

/** Outcomes of requests, in the order in which they are stacked. */
const OUTCOMES = [
  ["done", "answered"],
  ["resumed", "answered after a move"],
  ["quota", "refused: budget"],
  ["refused", "refused"],
  ["failed", "failed"],
  ["left", "caller left"],
  ["open", "not ended"],
];
/** Families of faults, as they are drawn. */
const FAULTS = [
  ["cut", "partition"],
  ["crash", "crash"],
  ["freeze", "freeze, pause"],
  ["disk", "disk"],
  ["clock", "clock"],
  ["other", "other fault"],
];

const requests = RUN.requests.map(([id, tenant, ingest, from, to, outcome, tokens, legs, note], index) => ({
  index, id, tenant, ingest, from, to: to < 0 ? RUN.span : to, outcome: OUTCOMES[outcome][0], tokens, note,
  legs: legs.map(([node, begun, ended]) => ({ node, from: begun, to: ended < 0 ? RUN.span : ended })),
  rows: [],
}));
const faults = RUN.faults.map(([family, label, from, to, sides], index) => ({
  index, family: FAULTS[family][0], label, from, to: to < 0 ? RUN.span : to, sides,
}));
const transfers = RUN.transfers.map(([from, to, sent, got, budget, amount], index) => ({
  index, from, to, sent, got, budget, amount,
}));
const marks = RUN.marks.map(([at, node, kind, text], index) => ({ index, at, node, kind, text }));
const violations = RUN.violations.map(([at, node, id, sentence, what], index) => ({
  index, at, node, id, sentence, what,
}));
const series = RUN.series.map(([budget, node, flat]) => {
  const points = [];
  for (let at = 0; at < flat.length; at += 4) {
    points.push({ at: flat[at], ceiling: flat[at + 1], hw: flat[at + 2], spent: flat[at + 3] });
  }
  return { budget, node, points };
});

/** What is shown and how: everything a person can change. */
const view = {
  from: 0,
  to: RUN.span,
  hidden: new Set(),
  budget: 0,
  tenant: -1,
  chosen: null,
};

// The budget with the most to see is shown first.
const seenOf = (budget) => transfers.filter((one) => one.budget === budget).length;
view.budget = RUN.budgets.reduce((best, _, budget) => seenOf(budget) > seenOf(best) ? budget : best, 0);

/** Sizes of a lane, by how many nodes have to find room on the page. */
const few = RUN.nodes.length <= 8, some = RUN.nodes.length <= 20, many = RUN.nodes.length > 60;
const SIZE = {
  gutter: 104,
  right: 14,
  bar: few ? 7 : some ? 5 : 3,
  gap: few ? 2 : 1,
  rows: few ? 6 : some ? 4 : many ? 1 : 2,
  spark: RUN.budgets.length === 0 ? 0 : few ? 28 : some ? 16 : 0,
  pad: few ? 5 : many ? 1 : 3,
  top: few ? 19 : 2,
  mesh: RUN.budgets.length === 0 ? 0 : 74,
};
if (few) {
  // A small mesh fills the page: thicker bars are easier to read and to point at.
  const room = 540 / RUN.nodes.length - SIZE.top - SIZE.spark - 2 * SIZE.pad;
  SIZE.bar = Math.max(SIZE.bar, Math.min(12, Math.floor(room / SIZE.rows - SIZE.gap)));
}
SIZE.bars = SIZE.rows * (SIZE.bar + SIZE.gap);
SIZE.lane = SIZE.top + SIZE.bars + SIZE.spark + 2 * SIZE.pad;
SIZE.chart = SIZE.mesh + RUN.nodes.length * SIZE.lane + 6;

const laneTop = (node) => SIZE.mesh + node * SIZE.lane;
const barTop = (node, row) => laneTop(node) + SIZE.pad + SIZE.top + row * (SIZE.bar + SIZE.gap);
const laneMiddle = (node) => laneTop(node) + SIZE.lane / 2;

/** Puts what overlaps in one lane into rows; what finds none shares the last. */
function pack() {
  const pieces = [];
  for (const request of requests) {
    const { ingest: node, from, to } = request;
    pieces.push({ node, from, to, put: (row) => { request.row = row; } });
    for (const leg of request.legs) {
      if (leg.node !== node) {
        pieces.push({ node: leg.node, from: leg.from, to: leg.to, put: (row) => { leg.row = row; } });
      }
    }
  }
  pieces.sort((a, b) => a.from - b.from);
  const free = RUN.nodes.map(() => new Array(SIZE.rows).fill(-1));
  const air = RUN.span / 2000;
  for (const piece of pieces) {
    const ends = free[piece.node];
    let row = ends.findIndex((end) => end <= piece.from);
    if (row < 0) { row = SIZE.rows - 1; }
    ends[row] = Math.max(ends[row], piece.to + air);
    piece.put(row);
  }
}
pack();

/** Time as people read it: as exact as the step between two ticks. */
function timeText(micros, step) {
  const seconds = micros / 1e6;
  if (step !== undefined && step < 1e6) {
    return seconds.toFixed(step < 1e3 ? 6 : step < 1e4 ? 3 : step < 1e5 ? 2 : 1) + " s";
  }
  if (RUN.span < 180e6) { return (Number.isInteger(seconds) ? seconds : seconds.toFixed(3)) + " s"; }
  const whole = Math.floor(seconds), rest = step === undefined ? (seconds - whole).toFixed(3).slice(1) : "";
  const two = (number) => String(number).padStart(2, "0");
  const clock = two(Math.floor(whole / 60) % 60) + ":" + two(whole % 60) + rest;
  return RUN.span >= 3600e6 ? Math.floor(whole / 3600) + ":" + clock : clock;
}
function spanText(micros) {
  if (micros < 1e3) { return micros + " µs"; }
  if (micros < 1e6) { return (micros / 1e3).toFixed(micros < 1e4 ? 2 : 0) + " ms"; }
  return (micros / 1e6).toFixed(micros < 1e7 ? 2 : 1) + " s";
}
const countText = (count) => count.toLocaleString("en-US").replaceAll(",", "\u202f");
const escapeText = (text) => String(text).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
const nodeName = (node) => node < 0 ? "mesh" : RUN.nodes[node];
const word = (pairs, key) => pairs.find(([name]) => name === key)[1];

const shown = {
  request: (request) => !view.hidden.has(request.outcome)
    && (view.tenant < 0 || request.tenant === view.tenant),
  fault: (fault) => !view.hidden.has("fault-" + fault.family),
  transfer: (transfer) => !view.hidden.has("transfer")
    && (view.budget < 0 || transfer.budget === view.budget),
  mark: () => !view.hidden.has("mark"),
  violation: () => !view.hidden.has("violation"),
};
