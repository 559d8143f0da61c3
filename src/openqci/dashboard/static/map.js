/** The map: four canvases on top of each other, one view, and what lies under the pointer. */

import { drawBasemap, projectionFor, shapesOf, UNIT } from "./basemap.js";
import { drawPulses, drawRoute } from "./effects.js";
import { prefersStillness } from "./dom.js";
import { listenForMoves } from "./gestures.js";
import { drawLabels, forgetWidths, FreeSpace, shortened } from "./labels.js";
import { drawHalo, drawHops, drawNodes, hopWidth } from "./layers.js";
import { growth, markOf } from "./marks.js";
import { drawFlights, isHopShown, moveSatellites } from "./satellites.js";
import { ROUTE_COLOUR } from "./scale.js";
import { drawTroubles, troublesOf } from "./troubles.js";

const ZOOM_MIN = 0.55;
const ZOOM_MAX = 60;
const EFFECT_PERIOD_MS = { lively: 45, calm: 100 };
const LIVELY_MS = 9000;
const FLIGHT_MS = 650;
const SETTLE_MS = 140;
const NODE_REACH_PX = 10;
const HOP_REACH_PX = 6;
/** Names keep off marks of at least this radius: the capitals. */
const KEPT_FREE_PX = 3.65;
/** @typedef {"base" | "hops" | "effects" | "nodes"} Layer */
const LAYERS = /** @type {Layer[]} */ (["base", "hops", "effects", "nodes"]);

export class NetworkMap {
  /**
   * @param {HTMLElement} container holds one canvas for each layer
   * @param {import("./types.js").Model} model @param {any} world topology
   * @param {{select: (thing: import("./types.js").Thing | null) => void,
   *   hover: (thing: import("./types.js").Thing | null, x: number, y: number) => void,
   *   frame: () => import("./types.js").Box}} listener   `frame`: the part of the map that no panel covers
   */
  constructor(container, model, world, listener) {
    this.container = container;
    this.model = model;
    this.listener = listener;
    this.canvases = new Map(LAYERS.map((name) => [name, /** @type {HTMLCanvasElement} */ (container.querySelector(`[data-layer=${name}]`))]));
    this.projection = projectionFor(model.frameNodes());
    this.units = model.nodes.map(({ lon, lat }) => /** @type {[number, number] | null} */ (this.projection([lon, lat])));
    this.shapes = shapesOf(world, this.projection, model.network.domains.map(({ domain }) => domain));
    this.dirty = new Set(LAYERS);
    this.view = { k: 1, x: 0, y: 0 };
    this.everything = this.view;
    this.isEverything = true;
    this.moved_ms = 0;
    this.counters = { frames: 0, nodesDrawn: 0, hopsDrawn: 0, labelsDrawn: 0 };
    /** @type {import("./types.js").Live | null} */
    this.live = null;
    /** @type {import("./troubles.js").Troubles} */
    this.troubles = { attacked: [], parted: [], stopped: [] };
    /** @type {{points: number[], since_ms: number} | null} */
    this.route = null;
    /** @type {import("./types.js").Thing | null} */
    this.selected = null;
    /** @type {import("./types.js").Thing | null} */
    this.hovered = null;
    /** @type {{from: import("./types.js").View, to: import("./types.js").View, since_ms: number} | null} */
    this.flight = null;
    this.effects_ms = 0;
    this.place = this.place.bind(this);
    this.begin();
  }

  begin() {
    new ResizeObserver(() => this.resize()).observe(this.container);
    document.fonts?.ready.then(() => {
      forgetWidths();
      this.touch("nodes");
    });
    listenForMoves(this.container, {
      pan: (dx, dy) => this.moveTo({ ...this.view, x: this.view.x + dx, y: this.view.y + dy }),
      zoom: (factor, x, y) => this.zoomBy(factor, x, y),
      click: (x, y) => this.listener.select(this.thingAt(x, y)),
      hover: (x, y) => this.hover(x, y),
      leave: () => this.hover(-1e6, -1e6),
      everything: () => this.showEverything(),
    });
    requestAnimationFrame((now_ms) => this.frame(now_ms));
  }

  // --- what is shown ---

  /** @param {import("./types.js").Live} live */
  showLive(live) {
    this.live = live;
    if (live.satellites?.length) {
      moveSatellites(this.model, this.units, live, this.projection);
      this.touch("nodes");
    }
    const before = JSON.stringify(this.troubles);
    this.troubles = troublesOf(this.model, live);
    this.touch("hops");
    if (JSON.stringify(this.troubles) !== before) this.touch("nodes");
  }

  /** @param {import("./types.js").Route | null} route */
  showRoute(route) {
    const points = (route?.sites ?? []).map((site) => this.model.nodeIndex.get(site)).filter((index) => index !== undefined);
    this.route = points.length > 1 ? { points, since_ms: performance.now() } : null;
    this.touch("effects", "nodes");
  }

  /** @param {import("./types.js").Thing | null} thing */
  showSelected(thing) {
    this.selected = thing;
    this.touch("nodes");
  }

  // --- the view ---

  get width() { return this.container.clientWidth; }
  get height() { return this.container.clientHeight; }

  /** 1 when everything just fits. */
  get zoom() { return this.view.k / this.everything.k; }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of this.canvases.values()) {
      canvas.width = Math.round(this.width * ratio);
      canvas.height = Math.round(this.height * ratio);
    }
    const followed = this.isEverything;
    this.everything = this.viewOf(this.model.nodes.map((_, index) => index).filter((index) => this.model.inEurope[index]), 28);
    if (followed) this.moveTo(this.everything);
    this.touch(...LAYERS);
  }

  /** The view in which some nodes fill the free part of the map.
   * @param {number[]} nodes @param {number} marginPx @returns {import("./types.js").View} */
  viewOf(nodes, marginPx) {
    const points = nodes.map((index) => this.units[index]).filter((point) => point !== null);
    const frame = this.listener.frame();
    const [x0, x1] = [Math.min(...points.map(([x]) => x)), Math.max(...points.map(([x]) => x))];
    const [y0, y1] = [Math.min(...points.map(([, y]) => y)), Math.max(...points.map(([, y]) => y))];
    const [wide, high] = [frame.x1 - frame.x0 - 2 * marginPx, frame.y1 - frame.y0 - 2 * marginPx];
    const k = Math.min(wide / Math.max(x1 - x0, UNIT / 500), high / Math.max(y1 - y0, UNIT / 500));
    return { k, x: (frame.x0 + frame.x1) / 2 - (k * (x0 + x1)) / 2, y: (frame.y0 + frame.y1) / 2 - (k * (y0 + y1)) / 2 };
  }

  showEverything() {
    this.flyTo(this.everything);
  }

  /** @param {number[]} nodes @param {number} [zoomMax] */
  showNodes(nodes, zoomMax = 14) {
    const frame = this.listener.frame();
    const wanted = this.viewOf(nodes, 60);
    const k = Math.min(wanted.k, this.everything.k * zoomMax);
    const [cx, cy] = [(frame.x0 + frame.x1) / 2, (frame.y0 + frame.y1) / 2];
    this.flyTo({ k, x: cx + ((wanted.x - cx) * k) / wanted.k, y: cy + ((wanted.y - cy) * k) / wanted.k });
  }

  /** @param {number} factor @param {number} x @param {number} y fixed point, px */
  zoomBy(factor, x, y) {
    const k = Math.max(this.everything.k * ZOOM_MIN, Math.min(this.everything.k * ZOOM_MAX, this.view.k * factor));
    const scale = k / this.view.k;
    this.moveTo({ k, x: x + (this.view.x - x) * scale, y: y + (this.view.y - y) * scale });
  }

  /** @param {import("./types.js").View} view */
  flyTo(view) {
    if (prefersStillness()) return this.moveTo(view);
    this.flight = { from: { ...this.view }, to: { ...view }, since_ms: performance.now() };
  }

  /** @param {import("./types.js").View} view */
  moveTo(view) {
    this.flight = null;
    this.setView(view);
  }

  /** @param {import("./types.js").View} view */
  setView(view) {
    this.view = { ...view };
    this.isEverything = closeTo(view, this.everything);
    this.moved_ms = performance.now();
    this.touch(...LAYERS);
  }

  /** @param {number} index @returns {[number, number] | null} screen position of a node, null when out of sight */
  place(index) {
    const unit = this.units[index];
    if (!unit) return null;
    const [x, y] = [unit[0] * this.view.k + this.view.x, unit[1] * this.view.k + this.view.y];
    const far = 400;
    return x < -far || y < -far || x > this.width + far || y > this.height + far ? null : [x, y];
  }

  // --- drawing ---

  /** @param {...Layer} layers */
  touch(...layers) {
    layers.forEach((layer) => this.dirty.add(layer));
  }

  /** @param {number} now_ms */
  frame(now_ms) {
    if (this.flight) this.fly(now_ms);
    if ((this.live || this.route) && now_ms - this.effects_ms > this.effectPeriod(now_ms)) this.touch("effects");
    if (this.dirty.size && this.width) this.draw(now_ms);
    requestAnimationFrame((next_ms) => this.frame(next_ms));
  }

  /** A fresh route runs smoothly; afterwards slow breathing is enough and leaves the cores to the network.
   * @param {number} now_ms */
  effectPeriod(now_ms) {
    const lively = this.route !== null && now_ms - this.route.since_ms < LIVELY_MS;
    return lively ? EFFECT_PERIOD_MS.lively : EFFECT_PERIOD_MS.calm;
  }

  /** @param {number} now_ms */
  fly(now_ms) {
    const { from, to, since_ms } = /** @type {NonNullable<typeof this.flight>} */ (this.flight);
    const share = Math.min(1, Math.max(0, (now_ms - since_ms) / FLIGHT_MS));
    const eased = share < 0.5 ? 4 * share ** 3 : 1 - (-2 * share + 2) ** 3 / 2;
    const k = from.k * (to.k / from.k) ** eased;
    // the pan runs with the zoom, so that the path on the ground is straight
    const pan = Math.abs(to.k - from.k) < 1e-9 ? eased : (k - from.k) / (to.k - from.k);
    this.setView({ k, x: from.x + (to.x - from.x) * pan, y: from.y + (to.y - from.y) * pan });
    if (share === 1) this.moveTo(to);
  }

  /** @param {number} now_ms */
  draw(now_ms) {
    const wanted = new Set(this.dirty);
    this.dirty.clear();
    for (const layer of LAYERS) {
      if (wanted.has(layer)) this.drawLayer(layer, now_ms);
    }
    this.counters.frames += 1;
  }

  /** @param {Layer} layer @param {number} now_ms */
  drawLayer(layer, now_ms) {
    const canvas = /** @type {HTMLCanvasElement} */ (this.canvases.get(layer));
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const ratio = canvas.width / this.width;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (layer !== "base") context.clearRect(0, 0, this.width, this.height);
    if (layer === "base") this.drawBase(context, ratio, now_ms);
    if (layer === "hops") this.counters.hopsDrawn = this.drawHops(context);
    if (layer === "effects") this.drawEffects(context, now_ms);
    if (layer === "nodes") this.drawTop(context);
  }

  /** @param {CanvasRenderingContext2D} context */
  drawHops(context) {
    const only = (/** @type {number} */ hop) => isHopShown(this.model, this.live, hop);
    return drawHops(context, this.model, this.place, this.live, { zoom: this.zoom, only });
  }

  /** Screen position of any place on the Earth; null on its other side. @param {[number, number]} place lon, lat
   * @returns {[number, number] | null} */
  toScreen(place) {
    const unit = /** @type {[number, number] | null} */ (this.projection(place));
    return unit && [unit[0] * this.view.k + this.view.x, unit[1] * this.view.k + this.view.y];
  }

  /** While the map moves the coast does without its glow; it comes back when the map rests.
   * @param {CanvasRenderingContext2D} context @param {number} ratio @param {number} now_ms */
  drawBase(context, ratio, now_ms) {
    const resting = now_ms - this.moved_ms > SETTLE_MS || this.counters.frames === 0;
    if (!resting) setTimeout(() => this.touch("base"), SETTLE_MS + 10);
    drawBasemap(context, this.shapes, this.view, { width: this.width, height: this.height, ratio, glow: resting });
  }

  /** @param {CanvasRenderingContext2D} context @param {number} now_ms */
  drawEffects(context, now_ms) {
    this.effects_ms = now_ms;
    const still = prefersStillness();
    const width = hopWidth(this.zoom);
    if (this.live) drawPulses(context, this.model, this.place, this.live, { now_s: now_ms / 1000, width, still });
    if (this.live) drawFlights(context, this.model, this.place, this.live, (place) => this.toScreen(place));
    if (!this.route) return;
    const points = this.route.points.map(this.place).filter((point) => point !== null);
    drawRoute(context, points, { age_s: Math.max(0, now_ms - this.route.since_ms) / 1000, still });
  }

  /** Nodes, halos and names. @param {CanvasRenderingContext2D} context */
  drawTop(context) {
    const drawn = drawNodes(context, this.model, this.place, { zoom: this.zoom });
    this.counters.nodesDrawn = drawn.length;
    drawTroubles(context, this.model, this.place, this.troubles);
    if (this.hovered) drawHalo(context, this.model, this.place, this.hovered, "#9fd8ff");
    if (this.selected) drawHalo(context, this.model, this.place, this.selected, "#ffffff");
    const space = new FreeSpace({ ...this.listener.frame(), y0: 2 });
    this.counters.labelsDrawn = drawLabels(context, this.labels(drawn, space), space);
  }

  /** Names in the order of importance; the marks of the important nodes are kept free.
   * @param {number[]} drawn @param {FreeSpace} space @returns {import("./labels.js").Label[]} */
  labels(drawn, space) {
    const first = this.firstLabels();
    const named = drawn.filter((index) => !first.some((label) => label.node === index) && markOf(this.model.nodes[index]).labelZoom <= this.zoom);
    for (const index of drawn) {
      const [x, y] = /** @type {[number, number]} */ (this.place(index));
      const radius = markOf(this.model.nodes[index]).radius;
      if (radius >= KEPT_FREE_PX) space.take({ x0: x - radius, y0: y - radius, x1: x + radius, y1: y + radius });
    }
    return [...first, ...named.map((index) => this.label(index))];
  }

  /** The ends of the last route and what is selected come before all else. */
  firstLabels() {
    const ends = this.route ? [this.route.points[0], this.route.points[this.route.points.length - 1]] : [];
    const selected = this.selected?.kind === "node" ? [this.model.indexOf(this.selected.id)] : [];
    return [...new Set([...ends, ...selected])].filter((index) => this.place(index)).map((index) => ({
      ...this.label(index), node: index, weight: 650, size: 12.5, colour: "#120d22", pill: ends.includes(index) ? ROUTE_COLOUR : "#ffffff", reach: 8,
    }));
  }

  /** @param {number} index @returns {import("./labels.js").Label} */
  label(index) {
    const node = this.model.nodes[index];
    const mark = markOf(node);
    const [x, y] = /** @type {[number, number]} */ (this.place(index));
    const reach = mark.radius * growth(this.zoom) + (mark.shape === "ring" ? 3 : 1.5);
    return { x, y, text: shortened(node.name), size: mark.labelSize, weight: mark.labelWeight, colour: mark.labelColour, reach };
  }

  // --- what lies where ---

  /** @param {number} x @param {number} y */
  hover(x, y) {
    const thing = this.thingAt(x, y);
    if (thing?.id !== this.hovered?.id) this.touch("nodes");
    this.hovered = thing;
    this.container.classList.toggle("pointing", thing !== null);
    this.listener.hover(thing, x, y);
  }

  /** @param {number} x @param {number} y @returns {import("./types.js").Thing | null} */
  thingAt(x, y) {
    const node = this.nearest(this.model.nodes.length, NODE_REACH_PX, (index) => this.distanceToNode(index, x, y));
    if (node !== null) return { kind: "node", id: this.model.nodes[node].site_id };
    const hop = this.nearest(this.model.hops.length, HOP_REACH_PX, (index) => this.distanceToHop(index, x, y));
    return hop === null ? null : { kind: "hop", id: this.model.hops[hop].link_id };
  }

  /** @param {number} count @param {number} reach @param {(index: number) => number} distance @returns {number | null} */
  nearest(count, reach, distance) {
    let [best, bestDistance] = [/** @type {number | null} */ (null), reach];
    for (let index = 0; index < count; index += 1) {
      const away = distance(index);
      if (away < bestDistance) [best, bestDistance] = [index, away];
    }
    return best;
  }

  /** Big marks win a little over small ones beside them. @param {number} index @param {number} x @param {number} y */
  distanceToNode(index, x, y) {
    const mark = markOf(this.model.nodes[index]);
    const at = this.place(index);
    if (!at || mark.zoomMin > this.zoom) return Infinity;
    return Math.max(0, Math.hypot(at[0] - x, at[1] - y) - mark.radius * growth(this.zoom) * 0.6);
  }

  /** @param {number} index @param {number} x @param {number} y */
  distanceToHop(index, x, y) {
    const [a, b] = this.model.ends[index].map(this.place);
    if (!a || !b || !isHopShown(this.model, this.live, index)) return Infinity;
    const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
    const along = Math.max(0, Math.min(1, ((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy || 1)));
    return Math.hypot(a[0] + along * dx - x, a[1] + along * dy - y);
  }
}

/** @param {import("./types.js").View} a @param {import("./types.js").View} b */
function closeTo(a, b) {
  return Math.abs(a.k / b.k - 1) < 1e-6 && Math.abs(a.x - b.x) + Math.abs(a.y - b.y) < 0.5;
}
