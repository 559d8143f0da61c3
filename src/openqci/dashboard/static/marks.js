/** How each kind of node looks, and from which zoom on it is there. */

import { SPACE_COLOUR } from "./scale.js";

/**
 * `shape` and colour tell the kinds apart; `radius` in px at zoom 1; `zoomMin`: the node appears there;
 * `labelZoom`: its name may appear there.
 * @typedef {{shape: "disc" | "ring" | "triangle" | "diamond" | "square", colour: string, radius: number,
 *   zoomMin: number, labelZoom: number, labelSize: number, labelWeight: number, labelColour: string}} Mark
 */

/** @type {Record<string, Mark>} */
export const MARKS = {
  capital_node: { shape: "ring", colour: "#ffffff", radius: 3.7, zoomMin: 0, labelZoom: 0, labelSize: 12, labelWeight: 600, labelColour: "#f2f7fb" },
  satellite: { shape: "square", colour: "#ffffff", radius: 3.4, zoomMin: 0, labelZoom: 0, labelSize: 12, labelWeight: 600, labelColour: "#e6dcff" },
  overseas_node: { shape: "ring", colour: "#9fe3ea", radius: 3.1, zoomMin: 0, labelZoom: 1.4, labelSize: 11, labelWeight: 500, labelColour: "#c9e9ee" },
  gateway: { shape: "diamond", colour: SPACE_COLOUR, radius: 3.6, zoomMin: 0, labelZoom: 2.6, labelSize: 11, labelWeight: 500, labelColour: "#d7ccff" },
  ground_station: { shape: "triangle", colour: SPACE_COLOUR, radius: 3.4, zoomMin: 0, labelZoom: 2.6, labelSize: 11, labelWeight: 500, labelColour: "#cfc3ff" },
  trusted_node: { shape: "disc", colour: "#a9bed1", radius: 1.75, zoomMin: 0, labelZoom: 1.7, labelSize: 11, labelWeight: 450, labelColour: "#b9cad9" },
  strategic_site: { shape: "square", colour: "#8ba2b8", radius: 1.5, zoomMin: 1.6, labelZoom: 5, labelSize: 10.5, labelWeight: 400, labelColour: "#94a9bc" },
  generated: { shape: "disc", colour: "#6f8aa3", radius: 0.95, zoomMin: 1.9, labelZoom: 14, labelSize: 10, labelWeight: 400, labelColour: "#7f96ab" },
};

/** @param {{kind: string, generated: boolean}} node @returns {Mark} */
export const markOf = (node) => (node.generated ? MARKS.generated : (MARKS[node.kind] ?? MARKS.trusted_node));

/** Marks grow more slowly than the map. @param {number} zoom 1 shows everything */
export const growth = (zoom) => Math.min(2.1, Math.max(0.85, zoom ** 0.33));

const DARK = "#0a1520";

/**
 * @param {CanvasRenderingContext2D} context @param {Mark} mark @param {number} x @param {number} y
 * @param {number} radius px @param {boolean} hollow for a node that waits for a satellite
 */
export function drawMark(context, mark, x, y, radius, hollow) {
  context.beginPath();
  trace(context, mark.shape, x, y, radius);
  context.lineWidth = mark.shape === "ring" ? Math.max(1.4, radius * 0.42) : Math.max(1, radius * 0.35);
  if (radius > 1.3) {
    context.strokeStyle = hollow ? mark.colour : DARK;
    context.stroke();
  }
  context.fillStyle = hollow ? DARK : mark.colour;
  context.fill();
  if (mark.shape === "ring" && !hollow) ringAround(context, mark, x, y, radius);
}

/** @param {CanvasRenderingContext2D} context @param {Mark} mark @param {number} x @param {number} y @param {number} radius */
function ringAround(context, mark, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius + 2.2, 0, 2 * Math.PI);
  context.lineWidth = 1;
  context.globalAlpha = 0.55;
  context.strokeStyle = mark.colour;
  context.stroke();
  context.globalAlpha = 1;
}

/** @param {CanvasRenderingContext2D} context @param {Mark["shape"]} shape @param {number} x @param {number} y @param {number} r */
function trace(context, shape, x, y, r) {
  if (shape === "disc" || shape === "ring") return context.arc(x, y, r, 0, 2 * Math.PI);
  const corners = {
    triangle: [[0, -1.25], [1.15, 0.85], [-1.15, 0.85]],
    diamond: [[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]],
    square: [[-1, -1], [1, -1], [1, 1], [-1, 1]],
  }[shape];
  corners.forEach(([dx, dy], index) => (index ? context.lineTo(x + dx * r, y + dy * r) : context.moveTo(x + dx * r, y + dy * r)));
  context.closePath();
}
