/** Hops and nodes: functions that draw a network with given positions onto a context. No state of their own. */

import { BIN_COLOURS, BINS, DOWN, DOWN_COLOUR, fullness, stockBin } from "./scale.js";
import { drawMark, growth, markOf } from "./marks.js";

/** @typedef {(index: number) => [number, number] | null} Place   screen position of a node, null when out of sight */

/** @param {number} zoom */
export const hopWidth = (zoom) => 1.6 * Math.min(2.6, Math.max(0.9, zoom ** 0.42));

/**
 * @param {CanvasRenderingContext2D} context @param {import("./types.js").Model} model @param {Place} place
 * @param {import("./types.js").Live | null} live @param {{zoom: number, only?: (hop: number) => boolean}} options
 * @returns {number} how many hops were drawn
 */
export function drawHops(context, model, place, live, { zoom, only }) {
  const bins = binned(model, place, live, only);
  const width = hopWidth(zoom);
  context.lineCap = "round";
  context.setLineDash([]);
  stroke(context, bins.flat(), "rgb(5 11 18 / 0.65)", width + 2.2);
  bins.forEach((lines, bin) => {
    if (bin === BINS) return;
    const full = bin / (BINS - 1);
    if (bin > BINS * 0.6) stroke(context, lines, BIN_COLOURS[bin], width * 3.4, 0.09);
    stroke(context, lines, BIN_COLOURS[bin], width * (0.78 + 0.45 * full), bin === 0 ? 0.8 : 1);
  });
  context.setLineDash([3, 4]);
  stroke(context, bins[BINS], DOWN_COLOUR, width * 1.2);
  context.setLineDash([]);
  return bins.reduce((sum, lines) => sum + lines.length, 0);
}

/** @typedef {[number, number, number, number]} Line */

/** Lines by colour: one path per colour, not one per hop. The last bin is for hops that are down.
 * @param {import("./types.js").Model} model @param {Place} place @param {import("./types.js").Live | null} live
 * @param {((hop: number) => boolean) | undefined} only @returns {Line[][]} */
function binned(model, place, live, only) {
  const bins = Array.from({ length: BINS + 1 }, () => /** @type {Line[]} */ ([]));
  model.ends.forEach(([a, b], hop) => {
    if (only && !only(hop)) return;
    const [from, to] = [place(a), place(b)];
    if (from && to) bins[binOf(hop, live)].push([...from, ...to]);
  });
  return bins;
}

/** @param {number} hop @param {import("./types.js").Live | null} live */
function binOf(hop, live) {
  if (!live) return 0;
  if (live.hops.state[hop] === DOWN) return BINS;
  return stockBin(fullness(live.hops.stock_bits[hop], live.hops.stock_high_bits));
}

/** @param {CanvasRenderingContext2D} context @param {Line[]} lines @param {string} colour @param {number} width
 * @param {number} [alpha] */
export function stroke(context, lines, colour, width, alpha = 1) {
  if (!lines.length) return;
  context.beginPath();
  for (const [x0, y0, x1, y1] of lines) {
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
  }
  context.globalAlpha = alpha;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
  context.globalAlpha = 1;
}

/**
 * Draw the nodes that this zoom shows, the least important first.
 * @param {CanvasRenderingContext2D} context @param {import("./types.js").Model} model @param {Place} place
 * @param {{zoom: number, only?: (node: number) => boolean}} options
 * @returns {number[]} indices of the nodes drawn, the most important first
 */
export function drawNodes(context, model, place, { zoom, only }) {
  const scale = growth(zoom);
  const drawn = model.byRank.filter((index) =>
    markOf(model.nodes[index]).zoomMin <= zoom && (!only || only(index)) && place(index));
  for (const index of [...drawn].reverse()) {
    const mark = markOf(model.nodes[index]);
    const [x, y] = /** @type {[number, number]} */ (place(index));
    drawMark(context, mark, x, y, mark.radius * scale, model.isWaiting(index) && mark.radius > 1.6);
  }
  return drawn;
}

/** A halo around what is selected or under the pointer.
 * @param {CanvasRenderingContext2D} context @param {import("./types.js").Model} model @param {Place} place
 * @param {import("./types.js").Thing} thing @param {string} colour */
export function drawHalo(context, model, place, thing, colour) {
  if (thing.kind === "hop") return drawHopHalo(context, model, place, thing.id, colour);
  const at = place(model.indexOf(thing.id));
  if (!at) return;
  context.beginPath();
  context.arc(at[0], at[1], 10, 0, 2 * Math.PI);
  context.strokeStyle = colour;
  context.lineWidth = 2;
  context.stroke();
  context.globalAlpha = 0.14;
  context.fillStyle = colour;
  context.fill();
  context.globalAlpha = 1;
}

/** @param {CanvasRenderingContext2D} context @param {import("./types.js").Model} model @param {Place} place
 * @param {string} linkId @param {string} colour */
function drawHopHalo(context, model, place, linkId, colour) {
  const [a, b] = model.ends[model.hopIndex.get(linkId) ?? 0].map(place);
  if (!a || !b) return;
  stroke(context, [[...a, ...b]], colour, 11, 0.22);
  stroke(context, [[...a, ...b]], colour, 1.2, 0.9);
}
