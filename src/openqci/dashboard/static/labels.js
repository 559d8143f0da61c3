/** Names on the map without collisions: the most important first, each at the first of its places that is free. */

const FONT = "Inter, system-ui, sans-serif";
const PADDING_PX = 2.5;

/**
 * @typedef {{x: number, y: number, text: string, size: number, weight: number, colour: string, reach: number,
 *   pill?: string}} Label   `reach`: radius of the mark that it names; `pill`: colour of a filled ground
 */

/** Boxes already taken, and the question whether another still fits. */
export class FreeSpace {
  /** @param {import("./types.js").Box} bounds */
  constructor(bounds) {
    this.bounds = bounds;
    /** @type {import("./types.js").Box[]} */
    this.taken = [];
  }

  /** @param {import("./types.js").Box} box */
  take(box) {
    this.taken.push(box);
  }

  /** @param {import("./types.js").Box} box @returns {boolean} */
  fits(box) {
    const { x0, y0, x1, y1 } = this.bounds;
    if (box.x0 < x0 || box.y0 < y0 || box.x1 > x1 || box.y1 > y1) return false;
    return !this.taken.some((other) =>
      box.x0 < other.x1 && box.x1 > other.x0 && box.y0 < other.y1 && box.y1 > other.y0);
  }
}

/**
 * Draw as many labels as fit, in the order given, and return how many that was.
 * @param {CanvasRenderingContext2D} context @param {Label[]} labels @param {FreeSpace} space
 */
export function drawLabels(context, labels, space) {
  context.textBaseline = "middle";
  context.lineJoin = "round";
  return labels.filter((label) => drawLabel(context, label, space)).length;
}

/** @param {CanvasRenderingContext2D} context @param {Label} label @param {FreeSpace} space @returns {boolean} */
function drawLabel(context, label, space) {
  context.font = `${label.weight} ${label.size}px ${FONT}`;
  const width = widthOf(context, label.text);
  const box = places(label, width).find((place) => space.fits(place));
  if (!box) return false;
  space.take(box);
  if (label.pill) paintPill(context, box, label);
  else paintText(context, box, label);
  return true;
}

/** Right, left, above, below. @param {Label} label @param {number} width @returns {import("./types.js").Box[]} */
function places({ x, y, size, reach, pill }, width) {
  const margin = pill ? 7 : PADDING_PX;
  const [w, h] = [width + 2 * margin, size * 1.15 + (pill ? 8 : 2)];
  const gap = reach + (pill ? 4 : 1);
  const corners = [
    [x + gap, y - h / 2], [x - gap - w, y - h / 2], [x - w / 2, y - gap - h], [x - w / 2, y + gap],
    [x + gap * 0.7, y - gap * 0.7 - h], [x + gap * 0.7, y + gap * 0.7],
    [x - gap * 0.7 - w, y - gap * 0.7 - h], [x - gap * 0.7 - w, y + gap * 0.7],
    [x - w * 0.25, y + gap], [x - w * 0.25, y - gap - h],
  ];
  return corners.map(([left, top]) => ({ x0: left, y0: top, x1: left + w, y1: top + h }));
}

/** @param {CanvasRenderingContext2D} context @param {import("./types.js").Box} box @param {Label} label */
function paintText(context, box, label) {
  const [x, y] = [box.x0 + PADDING_PX, (box.y0 + box.y1) / 2];
  context.strokeStyle = "rgb(6 13 21 / 0.88)";
  context.lineWidth = 3.2;
  context.strokeText(label.text, x, y);
  context.fillStyle = label.colour;
  context.fillText(label.text, x, y);
}

/** @param {CanvasRenderingContext2D} context @param {import("./types.js").Box} box @param {Label} label */
function paintPill(context, box, label) {
  context.beginPath();
  context.roundRect(box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0, 6);
  context.fillStyle = label.pill ?? "";
  context.fill();
  context.fillStyle = label.colour;
  context.fillText(label.text, box.x0 + 7, (box.y0 + box.y1) / 2 + 0.5);
}

/** @type {Map<string, number>} */
const widths = new Map();

/** Text measured once per font; measuring is the dear part of a label. */
function widthOf(/** @type {CanvasRenderingContext2D} */ context, /** @type {string} */ text) {
  const key = context.font + text;
  let width = widths.get(key);
  if (width === undefined) widths.set(key, (width = context.measureText(text).width));
  return width;
}

/** Measured widths are wrong once the web font has arrived. */
export function forgetWidths() {
  widths.clear();
}

/** What stands before a comma or a bracket says enough: "Pico do Arieiro, Madeira".
 * @param {string} name @param {number} [letters] */
export const briefly = (name, letters = 20) => shortened(name.split(/[,(]/)[0].trim(), letters);

/** @param {string} name @param {number} [letters] */
export const shortened = (name, letters = 30) => (name.length > letters ? `${name.slice(0, letters - 1).trimEnd()}…` : name);
