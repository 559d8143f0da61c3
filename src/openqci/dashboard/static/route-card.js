/** The card that tells the way of the last key. */

import { byId, el, morph } from "./dom.js";

/** A route stays in sight this long even if others follow, so that it can be read. */
const HOLD_MS = 6000;
/** One that somebody asked for stays longer. */
const HOLD_ASKED_MS = 20000;

export class RouteCard {
  /** @param {import("./types.js").Model} model @param {(route: import("./types.js").Route) => void} onNew
   * @param {(nodes: number[]) => void} zoomTo */
  constructor(model, onNew, zoomTo) {
    this.model = model;
    this.onNew = onNew;
    this.zoomTo = zoomTo;
    this.hold_ms = HOLD_MS;
    this.element = byId("route");
    this.since_ms = -Infinity;
    /** @type {import("./types.js").Route | null} */
    this.route = null;
    this.element.addEventListener("click", (event) => {
      if (this.route && event.target instanceof Element && event.target.closest(".go")) zoomTo(this.indices());
    });
  }

  /** @param {import("./types.js").Live} live */
  showLive(live) {
    const newest = live.last_route;
    const held = performance.now() - this.since_ms < this.hold_ms;
    if (newest && newest.batch_tag !== this.route?.batch_tag && !held) {
      this.route = newest;
      [this.since_ms, this.hold_ms] = [performance.now(), HOLD_MS];
      this.onNew(newest);
    }
    if (this.route) this.draw(this.route, live.time_s);
  }

  /** Draw a way that somebody asks for, and let it stay for a while. @param {string[]} sites */
  showWay(sites) {
    [this.since_ms, this.hold_ms] = [performance.now(), HOLD_ASKED_MS];
    this.onNew({ batch_tag: "", master_sae: "", slave_sae: "", sites, links: [], at_s: 0, hops: sites.length - 1 });
    this.zoomTo(sites.map((site) => this.model.nodeIndex.get(site)).filter((index) => index !== undefined));
  }

  /** Sites of the route that this network knows. */
  indices() {
    return (this.route?.sites ?? []).map((site) => this.model.nodeIndex.get(site)).filter((index) => index !== undefined);
  }

  /** @param {import("./types.js").Route} route @param {number} now_s */
  draw(route, now_s) {
    const [first, last] = [route.sites[0], route.sites[route.sites.length - 1]];
    const age_s = Math.max(0, Math.round(now_s - route.at_s));
    this.element.hidden = false;
    morph(this.element, el("div.card.route", { id: "route" },
      el("p.kind", {}, el("button.term", { type: "button", "data-term": "relay" }, "Last key"), el("span", {}, `${route.hops} hops · ${ago(age_s)}`)),
      el("button.go", { type: "button", title: "Show this route" }, el("b", {}, this.model.nameOf(first)), el("i", { "aria-hidden": true }), el("b", {}, this.model.nameOf(last))),
      el("p.via", {}, this.via())));
  }

  /** Named sites on the way; trusted nodes on long links would only fill the line. */
  via() {
    const inner = this.indices().slice(1, -1).map((index) => this.model.nodes[index]).filter((node) => !node.generated);
    return inner.length ? `via ${inner.map((node) => node.name).join(", ")}` : "direct neighbours";
  }
}

/** @param {number} age_s */
function ago(age_s) {
  if (age_s < 2) return "just now";
  return age_s < 120 ? `${age_s} s ago` : `${Math.round(age_s / 60)} min ago`;
}
