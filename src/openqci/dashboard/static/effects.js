/** What moves: hops that distil glow gently, and the last key's route runs as a bright line. */

import { isHopShown } from "./satellites.js";
import { DISTILLING, ROUTE_COLOUR } from "./scale.js";
import { stroke } from "./layers.js";

const PULSE_COLOUR = "#e2fcff";
const GLOW_COLOUR = "#5fe3f5";
const PULSE_GROUPS = 4;
const DRAW_IN_S = 1.1;
const BRIGHT_S = 9;

/**
 * @param {CanvasRenderingContext2D} context @param {import("./types.js").Model} model
 * @param {import("./layers.js").Place} place @param {import("./types.js").Live} live
 * @param {{now_s: number, width: number, still: boolean}} options
 */
export function drawPulses(context, model, place, live, { now_s, width, still }) {
  context.lineCap = "round";
  for (let group = 0; group < PULSE_GROUPS; group += 1) {
    const lines = distillingLines(model, place, live, group);
    // groups breathe one after the other, so that the network twinkles instead of flashing
    const breath = still ? 0.5 : 0.5 + 0.5 * Math.sin(now_s * 2.4 + (group * 2 * Math.PI) / PULSE_GROUPS);
    for (const spread of [6.5, 4.4, 2.6]) stroke(context, lines, GLOW_COLOUR, width * spread, 0.03 + 0.08 * breath);
    stroke(context, lines, PULSE_COLOUR, width * 1.1, 0.3 + 0.65 * breath);
  }
}

/** @param {import("./types.js").Model} model @param {import("./layers.js").Place} place
 * @param {import("./types.js").Live} live @param {number} group @returns {import("./layers.js").Line[]} */
function distillingLines(model, place, live, group) {
  const lines = [];
  for (let hop = group; hop < model.ends.length; hop += PULSE_GROUPS) {
    if (live.hops.state[hop] !== DISTILLING || !isHopShown(model, live, hop)) continue;
    const [a, b] = model.ends[hop].map(place);
    if (a && b) lines.push(/** @type {import("./layers.js").Line} */ ([...a, ...b]));
  }
  return lines;
}

/**
 * @param {CanvasRenderingContext2D} context @param {[number, number][]} points along the route, in px
 * @param {{age_s: number, still: boolean}} options
 */
export function drawRoute(context, points, { age_s, still }) {
  if (points.length < 2) return;
  const drawn = still ? 1 : Math.min(1, easeOut(age_s / DRAW_IN_S));
  const calm = age_s > BRIGHT_S ? 0.62 : 1;
  const length = lengthOf(points);
  context.lineCap = "round";
  context.lineJoin = "round";
  context.setLineDash([length * drawn, length]);
  context.lineDashOffset = 0;
  for (const [width, alpha] of [[13, 0.1], [7.5, 0.2], [4, 0.45]]) strokeThrough(context, points, ROUTE_COLOUR, width, alpha * calm);
  strokeThrough(context, points, "#ffffff", 1.8, calm);
  if (!still && drawn === 1) drawTravellers(context, points, age_s, calm);
  context.setLineDash([]);
}

/** Short bright dashes run from the master to the slave. @param {CanvasRenderingContext2D} context
 * @param {[number, number][]} points @param {number} age_s @param {number} alpha */
function drawTravellers(context, points, age_s, alpha) {
  context.setLineDash([5, 34]);
  context.lineDashOffset = -age_s * 46;
  strokeThrough(context, points, "#ffffff", 4.2, 0.9 * alpha);
}

/** @param {CanvasRenderingContext2D} context @param {[number, number][]} points @param {string} colour
 * @param {number} width @param {number} alpha */
function strokeThrough(context, points, colour, width, alpha) {
  context.beginPath();
  points.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.globalAlpha = alpha;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
  context.globalAlpha = 1;
}

/** @param {[number, number][]} points */
function lengthOf(points) {
  return points.slice(1).reduce((sum, [x, y], index) => sum + Math.hypot(x - points[index][0], y - points[index][1]), 0);
}

/** @param {number} share */
const easeOut = (share) => 1 - (1 - Math.min(1, share)) ** 3;
