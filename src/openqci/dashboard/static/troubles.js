/** What is wrong in the network: which hops and nodes carry a mark on the map, and the marks themselves. */

import { stroke } from "./layers.js";
import { DOWN_COLOUR } from "./scale.js";

export const ATTACKED_COLOUR = "#ffb454";
const GROUND = "#1d0c16";
const BADGE_PX = 7;
/** Alarm of `control/reaction.py`: somebody listens on a hop. */
const EAVESDROPPING = "eavesdropping";

/**
 * `attacked` hops have an eavesdropper or stand under suspicion; `parted` ones are cut; `stopped` are nodes.
 * @typedef {{attacked: number[], parted: number[], stopped: number[]}} Troubles
 */

/** @param {import("./types.js").Model} model @param {import("./types.js").Live} live @returns {Troubles} */
export function troublesOf(model, live) {
  const attacked = new Set();
  const parted = new Set();
  const stopped = new Set();
  const hop = (/** @type {string} */ id) => model.hopIndex.get(id);
  for (const { code, link_id: link } of live.alarms ?? []) {
    if (code === EAVESDROPPING) attacked.add(hop(link));
  }
  for (const { kind, links, sites } of live.faults ?? []) {
    if (kind === "qber") links.forEach((link) => attacked.add(hop(link)));
    if (kind === "stop" || kind === "isolate") sites.forEach((site) => stopped.add(model.nodeIndex.get(site)));
    if (kind === "cut" || kind === "isolate") links.forEach((link) => parted.add(hop(link)));
  }
  const known = (/** @type {Set<number | undefined>} */ found) => [...found].filter((index) => index !== undefined);
  return { attacked: known(attacked), parted: known(parted), stopped: known(stopped) };
}

/**
 * A ring and a sign on each: "!" where somebody listens, a cross where a fibre or a node is out of service.
 * @param {CanvasRenderingContext2D} context @param {import("./types.js").Model} model
 * @param {import("./layers.js").Place} place @param {Troubles} troubles
 */
export function drawTroubles(context, model, place, { attacked, parted, stopped }) {
  for (const [hops, colour, sign] of /** @type {[number[], string, string][]} */ ([[parted, DOWN_COLOUR, "×"], [attacked, ATTACKED_COLOUR, "!"]])) {
    for (const hop of hops) {
      const [a, b] = model.ends[hop].map(place);
      if (!a || !b) continue;
      stroke(context, [[...a, ...b]], colour, 9, 0.28);
      drawBadge(context, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2, colour, sign);
    }
  }
  for (const node of stopped) {
    const at = place(node);
    if (at) drawBadge(context, ...at, DOWN_COLOUR, "×");
  }
}

/** @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {string} colour @param {string} sign */
export function drawBadge(context, x, y, colour, sign) {
  context.beginPath();
  context.arc(x, y, BADGE_PX, 0, 2 * Math.PI);
  context.fillStyle = GROUND;
  context.fill();
  context.lineWidth = 1.6;
  context.strokeStyle = colour;
  context.stroke();
  context.fillStyle = colour;
  context.font = "700 11px Inter, system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(sign, x, y + 0.5);
  context.textAlign = "start";
}
