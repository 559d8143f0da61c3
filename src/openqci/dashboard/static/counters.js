/** The big numbers in the header. Between two events they run on, so that the eye sees movement, not jumps. */

import { bar, byId, el, morph, prefersStillness } from "./dom.js";
import { bits, clock, count, percent, rate } from "./format.js";

const STEP_MS = 100;
const RUN_MS = 1000;

export class Counters {
  constructor() {
    this.list = byId("counters");
    this.clock = byId("clock");
    this.progress = byId("progress");
    /** @type {import("./types.js").Live | null} */
    this.before = null;
    /** @type {import("./types.js").Live | null} */
    this.live = null;
    this.since_ms = 0;
    /** Numbers as shown, for whoever tests the page. @type {Record<string, number>} */
    this.shown = {};
    setInterval(() => this.draw(), STEP_MS);
  }

  /** @param {import("./types.js").Live} live */
  showLive(live) {
    this.before = this.live ?? live;
    this.live = live;
    this.since_ms = performance.now();
    this.draw();
  }

  draw() {
    if (!this.live || !this.before || document.hidden) return;
    const share = prefersStillness() ? 1 : Math.min(1, (performance.now() - this.since_ms) / RUN_MS);
    if (share === 1 && this.shown.share === 1) return;
    const between = (/** @type {number} */ from, /** @type {number} */ to) => from + (to - from) * share;
    const totals = { ...this.live.totals };
    for (const key of ["secret_bits_total", "stock_bits", "keys_delivered"]) totals[key] = between(this.before.totals[key], totals[key]);
    this.shown = { ...totals, share };
    morph(this.list, el("dl.counters", { id: "counters", "aria-label": "Live totals" }, ...tiles(totals)));
    this.drawClock(between(this.before.time_s, this.live.time_s));
  }

  /** @param {number} time_s */
  drawClock(time_s) {
    const { phase, ready_fraction: ready } = /** @type {import("./types.js").Live} */ (this.live);
    const commissioning = phase !== "running";
    const state = commissioning ? `commissioning ${percent(ready)}` : "running";
    morph(this.clock, el("div.clock", { id: "clock", role: "status", "data-phase": phase },
      el("b", {}, clock(time_s)), el("span", {}, state)));
    this.progress.hidden = !commissioning;
    /** @type {HTMLElement} */ (this.progress.firstElementChild).style.width = percent(ready, 1);
  }
}

/** @param {import("./types.js").Totals} totals @returns {HTMLElement[]} */
function tiles(totals) {
  return [
    tile("Secret bits distilled", "secret", count(totals.secret_bits_total), "since the network began", "big"),
    tile("Distilling now", "distilled", rate(totals.distilled_bps), `of ${rate(totals.possible_bps)} possible`),
    tile("Key in stock", "stock", bits(totals.stock_bits), `${rate(totals.consumed_bps)} spent`),
    tile("Keys delivered", "delivered", count(totals.keys_delivered), `${count(totals.relays)} relays`),
    tile("Hops with key", "stock", el("span", {}, count(totals.hops_with_key), el("small", {}, ` / ${count(totals.hops)}`)),
      bar(totals.hops_with_key / Math.max(1, totals.hops), "#40d6e8", "share of hops with key")),
  ];
}

/** @param {string} name @param {string} term @param {string | Node} value @param {string | Node} below @param {string} [size] */
function tile(name, term, value, below, size) {
  return el(size ? `div.tile.${size}` : "div.tile", {},
    el("dt", {}, el("button.term", { type: "button", "data-term": term }, name)),
    el("dd.value", {}, value), el("dd.below", {}, below));
}
