/**
 * The console: fetches what is fixed, follows what moves, and joins map, panel, tables and search.
 * Read `types.js` for the shapes, `map.js` for the drawing.
 */

import { Counters } from "./counters.js";
import { byId, el } from "./dom.js";
import { makeDomains } from "./domains.js";
import { EventLog } from "./events.js";
import { bits, kindName, percent, rate } from "./format.js";
import { explainTerms } from "./glossary.js";
import { makeInsets } from "./insets.js";
import { makeLegend } from "./legend.js";
import { fetchJson, followLive } from "./live.js";
import { NetworkMap } from "./map.js";
import { Model } from "./model.js";
import { Panel } from "./panel.js";
import { RouteCard } from "./route-card.js";
import { fullness, STATES } from "./scale.js";
import { makeSearch } from "./search.js";

/** Everything on the page that follows one network. */
class Console {
  /** @param {Model} model @param {any} world topology of the land */
  constructor(model, world) {
    this.model = model;
    /** @type {import("./types.js").Live | null} */
    this.live = null;
    this.map = new NetworkMap(byId("map"), model, world, {
      select: (thing) => this.select(thing),
      hover: (thing, x, y) => this.hover(thing, x, y),
      frame: freeFrame,
    });
    const goTo = (/** @type {string} */ siteId) => this.goTo(siteId);
    const zoomTo = (/** @type {number[]} */ nodes) => this.map.showNodes(nodes);
    this.insets = makeInsets(byId("right"), model, world, goTo);
    this.counters = new Counters();
    this.panel = new Panel(model, (thing) => this.select(thing));
    this.domains = makeDomains(byId("domains"), model, zoomTo);
    this.route = new RouteCard(model, (route) => this.map.showRoute(route), zoomTo);
    this.events = new EventLog({ select: (thing) => this.showPlace(thing), route: (sites) => this.route.showWay(sites) });
    makeLegend(byId("legend"));
    makeSearch(byId("search"), model, goTo);
    makeZoom(this.map);
    this.map.resize();
  }

  /** @param {import("./types.js").Live} live */
  showLive(live) {
    this.live = live;
    for (const part of [this.map, this.insets, this.counters, this.panel, this.domains, this.route, this.events]) part.showLive(live);
  }

  /** @param {import("./types.js").Thing | null} thing */
  select(thing) {
    this.map.showSelected(thing);
    this.insets.showSelected(thing);
    this.panel.show(thing, this.live);
  }

  /** Select a node and bring it into view. @param {string} siteId */
  goTo(siteId) {
    const index = this.model.indexOf(siteId);
    this.select({ kind: "node", id: siteId });
    if (!this.model.inEurope[index]) return;
    const around = this.model.hopsOfNode[index].flatMap((hop) => this.model.ends[hop]);
    this.map.showNodes([index, ...around], 7);
  }

  /** Select a node or hop and bring it into view. @param {import("./types.js").Thing} thing */
  showPlace(thing) {
    if (thing.kind === "node") return this.goTo(thing.id);
    this.select(thing);
    this.map.showNodes(this.model.ends[this.model.hopIndex.get(thing.id) ?? 0], 7);
  }

  /** @param {import("./types.js").Thing | null} thing @param {number} x @param {number} y */
  hover(thing, x, y) {
    const box = byId("hover");
    box.hidden = !thing;
    if (!thing) return;
    box.replaceChildren(...(thing.kind === "node" ? this.nodeWords(thing.id) : this.hopWords(thing.id)));
    box.style.left = `${Math.min(x + 14, this.map.width - box.offsetWidth - 8)}px`;
    box.style.top = `${Math.min(y + 16, this.map.height - box.offsetHeight - 8)}px`;
  }

  /** @param {string} siteId */
  nodeWords(siteId) {
    const node = this.model.nodes[this.model.indexOf(siteId)];
    return [el("b", {}, node.name), el("span", {}, `${kindName(node)} · ${node.domain}`)];
  }

  /** @param {string} linkId */
  hopWords(linkId) {
    const index = this.model.hopIndex.get(linkId) ?? 0;
    const hop = this.model.hops[index];
    const words = [el("b", {}, this.model.hopName(hop)), el("span", {}, `${hop.length_km.toFixed(0)} km · ${hop.loss_db.toFixed(1)} dB`)];
    if (!this.live) return words;
    const { stock_bits: stock, stock_high_bits: high, state, distilled_bps: distilled } = this.live.hops;
    words.push(el("span", {}, `${bits(stock[index])} in stock (${percent(fullness(stock[index], high))})`));
    return [...words, el("span", {}, distilled[index] > 0 ? `distilling ${rate(distilled[index])}` : STATES[state[index]])];
  }
}

/** The part of the map that stays free of the columns. @returns {import("./types.js").Box} */
function freeFrame() {
  const map = byId("map").getBoundingClientRect();
  const shown = (/** @type {string} */ id) => (byId(id).hidden ? null : byId(id).getBoundingClientRect());
  const [left, right] = [shown("left"), shown("panel") ?? shown("right")];
  const wide = map.width > 900;
  return {
    x0: wide && left ? left.right - map.left : 0, x1: wide && right ? right.left - map.left : map.width, y0: 0, y1: map.height,
  };
}

/** @param {NetworkMap} map */
function makeZoom(map) {
  const centre = () => /** @type {const} */ ([map.width / 2, map.height / 2]);
  const buttons = [
    ["+", "Zoom in", () => map.zoomBy(1.6, ...centre())], ["−", "Zoom out", () => map.zoomBy(1 / 1.6, ...centre())],
    ["⤢", "Show everything", () => map.showEverything()],
  ];
  for (const [text, label, action] of buttons) {
    const button = el("button", { type: "button", "aria-label": String(label), title: String(label) }, String(text));
    button.addEventListener("click", /** @type {() => void} */ (action));
    byId("zoom").append(button);
  }
}

/** @param {boolean} connected */
function showConnection(connected) {
  const notice = byId("notice");
  notice.hidden = connected;
  notice.textContent = connected ? "" : "No connection to the network. The figures are old; trying again.";
  document.body.classList.toggle("stale", !connected);
}

async function begin() {
  const [network, world] = await Promise.all([fetchJson("/api/network"), fetchJson("/static/vendor/countries-50m.json"), document.fonts?.ready]);
  document.title = `${network.title} · OpenQCI`;
  byId("title").textContent = network.title;
  byId("simulated").hidden = !network.simulated;
  explainTerms();
  const page = new Console(new Model(network), world);
  followLive((live) => page.showLive(live), showConnection);
  /** @type {any} */ (globalThis).openqci = testHook(page);
}

/** What a browser test may look at. @param {Console} page */
function testHook(page) {
  const { map, counters } = page;
  return {
    get frames() { return map.counters.frames; },
    get nodesDrawn() { return map.counters.nodesDrawn; },
    get hopsDrawn() { return map.counters.hopsDrawn; },
    get labelsDrawn() { return map.counters.labelsDrawn; },
    get counters() { return counters.shown; },
    get zoom() { return map.zoom; },
    get troubles() { return map.troubles; },
    get resting() { return map.flight === null; },
    /** Page coordinates of a node. @param {string} siteId */
    position(siteId) {
      const [x, y] = map.place(map.model.indexOf(siteId)) ?? [NaN, NaN];
      const box = map.container.getBoundingClientRect();
      return { x: box.left + x, y: box.top + y };
    },
    /** @param {string} siteId */
    select: (siteId) => page.goTo(siteId),
  };
}

begin().catch((error) => {
  byId("notice").hidden = false;
  byId("notice").textContent = `The console could not start: ${error.message}. Reload the page.`;
  throw error;
});
