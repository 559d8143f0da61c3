/** What colours and marks mean. */

import { el, svgElement } from "./dom.js";
import { drawMark, MARKS } from "./marks.js";
import { BIN_COLOURS, DOWN_COLOUR } from "./scale.js";
import { ATTACKED_COLOUR, drawBadge } from "./troubles.js";

const KINDS = [
  ["capital_node", "Capital"], ["trusted_node", "City node"], ["ground_station", "Ground station"],
  ["gateway", "Space gateway"], ["satellite", "Satellite"], ["strategic_site", "Strategic site"], ["overseas_node", "Overseas"],
  ["generated", "Trusted node"],
];

/** @param {HTMLElement} section */
export function makeLegend(section) {
  section.append(
    el("h2", {}, el("button.term", { type: "button", "data-term": "stock" }, "Key stock of a hop")),
    scaleBar(),
    el("p.ends", {}, el("span", {}, "empty"), el("span", {}, "¼"), el("span", {}, "full")),
    el("p.line", {}, lineSample("pulse"), el("button.term", { type: "button", "data-term": "distilled" }, "distilling now"),
      lineSample("last"), el("button.term", { type: "button", "data-term": "relay" }, "last key")),
    el("p.line", {}, badgeSample("!", ATTACKED_COLOUR), el("button.term", { type: "button", "data-term": "attacked" }, "attacked"),
      badgeSample("×", DOWN_COLOUR), "cut or stopped"),
    el("ul.kinds", {}, ...KINDS.map(([kind, name]) => el("li", {}, markSample(kind), nameOf(kind, name))),
      el("li", {}, markSample("capital_node", true), "Waits for space")),
  );
}

/** @param {string} kind @param {string} name */
function nameOf(kind, name) {
  return kind === "generated" ? el("button.term", { type: "button", "data-term": "trusted" }, name) : name;
}

function scaleBar() {
  const svg = svgElement("svg", { viewBox: `0 0 ${BIN_COLOURS.length} 1`, preserveAspectRatio: "none", class: "scale", role: "img", "aria-label": "colour scale from empty to full" });
  BIN_COLOURS.forEach((fill, bin) => svg.append(svgElement("rect", { x: bin, width: 1.02, height: 1, fill })));
  return svg;
}

/** @param {string} kind */
function lineSample(kind) {
  return el(`i.sample.${kind}`, { "aria-hidden": true });
}

/** @param {string} sign @param {string} colour */
function badgeSample(sign, colour) {
  return sample((context, size) => drawBadge(context, size / 2, size / 2, colour, sign));
}

/** @param {string} kind @param {boolean} [hollow] */
function markSample(kind, hollow = false) {
  return sample((context, size) => drawMark(context, MARKS[kind], size / 2, size / 2, Math.max(1.7, MARKS[kind].radius), hollow));
}

/** A small canvas with a drawing that the words beside it explain.
 * @param {(context: CanvasRenderingContext2D, size: number) => void} draw */
function sample(draw) {
  const [size, ratio] = [16, 2];
  const canvas = /** @type {HTMLCanvasElement} */ (el("canvas.mark", { width: size * ratio, height: size * ratio, "aria-hidden": true }));
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(ratio, ratio);
  draw(context, size);
  return canvas;
}
