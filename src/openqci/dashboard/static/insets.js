/** Small maps of what lies far from Europe, as on a banknote: territories that wait for the space segment. */

import { drawBasemap, projectionFor, shapesOf } from "./basemap.js";
import { el } from "./dom.js";
import { briefly, drawLabels, FreeSpace } from "./labels.js";
import { drawHalo, drawHops, drawNodes } from "./layers.js";
import { markOf } from "./marks.js";

/** West, south, east, north in degrees; `turn` is added to western longitudes so that the Pacific hangs together. */
const REGIONS = [
  { name: "North Atlantic", box: [-75, 41, -12, 78] },
  { name: "Azores, Madeira, Canaries", box: [-32, 25, -12, 41] },
  { name: "Caribbean and Guiana", box: [-75, 0, -50, 22] },
  { name: "Indian Ocean", box: [38, -55, 78, 5] },
  { name: "Pacific", box: [150, -30, 215, 0], turn: 360 },
];
const MARGIN_PX = 20;
const REACH_PX = 9;

/**
 * @param {HTMLElement} column @param {import("./types.js").Model} model @param {any} world
 * @param {(siteId: string) => void} select
 * @returns {{showLive: (live: import("./types.js").Live) => void, showSelected: (thing: import("./types.js").Thing | null) => void}}
 */
export function makeInsets(column, model, world, select) {
  const groups = groupsOf(model);
  const islands = model.waitingIslands();
  column.hidden = !groups.length && !islands.length;
  column.append(el("section.card.waiting-list", {}, el("h2", {}, "Waiting for the space segment"),
    el("p.quiet", {}, "No fibre joins these to the mainland."), islands.length ? islandList(model, islands, select) : null));
  const insets = groups.map((group) => new Inset(column, model, world, group, select));
  return {
    showLive: (live) => insets.forEach((inset) => inset.showLive(live)),
    showSelected: (thing) => insets.forEach((inset) => inset.showSelected(thing)),
  };
}

/** @typedef {{name: string, nodes: number[]}} Group */

/** @param {import("./types.js").Model} model @returns {Group[]} */
function groupsOf(model) {
  const regionOf = (/** @type {number} */ index) => REGIONS.findIndex((region) => isIn(region, model.nodes[index]));
  const overseas = model.overseas();
  const names = [...REGIONS.map(({ name }) => name), "Elsewhere"];
  return names.map((name, region) => ({
    name, nodes: overseas.filter((index) => regionOf(index) === (region < REGIONS.length ? region : -1)),
  })).filter(({ nodes }) => nodes.length);
}

/** @param {{box: number[], turn?: number}} region @param {{lon: number, lat: number}} node */
function isIn({ box: [west, south, east, north], turn = 0 }, { lon, lat }) {
  const turned = lon < 0 ? lon + turn : lon;
  return turned >= west && turned <= east && lat >= south && lat <= north;
}

/** @param {import("./types.js").Model} model @param {number[]} islands @param {(siteId: string) => void} select */
function islandList(model, islands, select) {
  const list = el("p.islands", {}, "On the map: ");
  islands.forEach((index) => {
    const { name, site_id: siteId } = model.nodes[index];
    const button = el("button.link", { type: "button" }, briefly(name, 24));
    button.addEventListener("click", () => select(siteId));
    list.append(button, " ");
  });
  return list;
}

class Inset {
  /** @param {HTMLElement} column @param {import("./types.js").Model} model @param {any} world
   * @param {Group} group @param {(siteId: string) => void} select */
  constructor(column, model, world, { name, nodes }, select) {
    this.model = model;
    this.members = new Set(nodes);
    this.nodes = nodes;
    this.canvas = /** @type {HTMLCanvasElement} */ (el("canvas", { role: "img", "aria-label": `${name}: ${nodes.length} nodes` }));
    column.append(el("figure.inset", {}, this.canvas, el("figcaption", {}, name, el("span", {}, nodes.length))));
    // longitudes west of the date line continue eastwards, so that the Pacific is one piece
    const places = nodes.map((index) => ({ lat: model.nodes[index].lat, lon: unwrapped(model.nodes[index].lon, nodes.some((other) => model.nodes[other].lon > 150)) }));
    this.projection = projectionFor(places, 5);
    this.shapes = shapesOf(world, this.projection, []);
    this.units = new Map(nodes.map((index, position) => [index, this.projection([places[position].lon, places[position].lat])]));
    /** @type {import("./types.js").Live | null} */
    this.live = null;
    /** @type {import("./types.js").Thing | null} */
    this.selected = null;
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.canvas.addEventListener("click", (event) => this.clicked(event, select));
    document.fonts?.ready.then(() => this.draw());
  }

  /** @param {import("./types.js").Live} live */
  showLive(live) {
    this.live = live;
    this.draw();
  }

  /** @param {import("./types.js").Thing | null} thing */
  showSelected(thing) {
    this.selected = thing;
    this.draw();
  }

  draw() {
    const [width, height, ratio] = [this.canvas.clientWidth, this.canvas.clientHeight, window.devicePixelRatio || 1];
    if (!width) return;
    this.paintLand(width, height, ratio);
    const context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.drawImage(/** @type {HTMLCanvasElement} */ (this.land), 0, 0, width, height);
    const place = (/** @type {number} */ index) => this.place(index);
    drawHops(context, this.model, place, this.live, { zoom: 1 });
    const drawn = drawNodes(context, this.model, place, { zoom: 1, only: (index) => this.members.has(index) });
    if (this.selected?.kind === "node" && this.members.has(this.model.indexOf(this.selected.id))) {
      drawHalo(context, this.model, place, this.selected, "#ffffff");
    }
    this.drawNames(context, drawn, width, height);
  }

  /** @param {CanvasRenderingContext2D} context @param {number[]} drawn @param {number} width @param {number} height */
  drawNames(context, drawn, width, height) {
    const space = new FreeSpace({ x0: 2, y0: 19, x1: width - 2, y1: height - 2 });
    drawLabels(context, drawn.map((index) => {
      const node = this.model.nodes[index];
      const [x, y] = /** @type {[number, number]} */ (this.place(index));
      return { x, y, text: briefly(node.name), size: 10, weight: 500, colour: markOf(node).labelColour, reach: 5 };
    }), space);
  }

  /** The land never changes: it is painted once for each size. @param {number} width @param {number} height @param {number} ratio */
  paintLand(width, height, ratio) {
    if (this.land && this.canvas.width === Math.round(width * ratio) && this.canvas.height === Math.round(height * ratio)) return;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.view = this.viewFor(width, height);
    this.land = Object.assign(document.createElement("canvas"), { width: this.canvas.width, height: this.canvas.height });
    const context = /** @type {CanvasRenderingContext2D} */ (this.land.getContext("2d"));
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    drawBasemap(context, this.shapes, this.view, { width, height, ratio, glow: true });
  }

  /** @param {number} width @param {number} height @returns {import("./types.js").View} */
  viewFor(width, height) {
    const points = [...this.units.values()];
    const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const top = MARGIN_PX + 12;
    const k = Math.min((width - 3 * MARGIN_PX) / Math.max(60, x1 - x0), (height - top - MARGIN_PX) / Math.max(60, y1 - y0));
    return { k, x: (width - 12) / 2 - (k * (x0 + x1)) / 2, y: (top + height - MARGIN_PX) / 2 - (k * (y0 + y1)) / 2 };
  }

  /** @param {number} index @returns {[number, number] | null} */
  place(index) {
    const unit = this.units.get(index);
    const view = this.view;
    return unit && view ? [unit[0] * view.k + view.x, unit[1] * view.k + view.y] : null;
  }

  /** @param {MouseEvent} event @param {(siteId: string) => void} select */
  clicked(event, select) {
    const away = (/** @type {number} */ index) => {
      const [x, y] = /** @type {[number, number]} */ (this.place(index));
      return Math.hypot(x - event.offsetX, y - event.offsetY);
    };
    const nearest = [...this.nodes].sort((a, b) => away(a) - away(b))[0];
    if (away(nearest) < REACH_PX * 1.6) select(this.model.nodes[nearest].site_id);
  }
}

/** @param {number} lon @param {boolean} pacific */
const unwrapped = (lon, pacific) => (pacific && lon < 0 ? lon + 360 : lon);
