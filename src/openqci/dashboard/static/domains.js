/** One row for each domain: how many of its hops have key and how full they are. A click shows the domain. */

import { bar, el } from "./dom.js";
import { countryName, rate } from "./format.js";
import { colourOf, fullness } from "./scale.js";

/** @param {HTMLElement} section @param {import("./types.js").Model} model @param {(nodes: number[]) => void} show */
export function makeDomains(section, model, show) {
  const rows = model.network.domains.map(({ domain }) => new Row(model, domain, show))
    .sort((a, b) => a.name.localeCompare(b.name));
  const head = el("tr", {}, el("th", { scope: "col" }, `${rows.length} domains`), el("th", { scope: "col", class: "number" }, "With key"),
    el("th", { scope: "col" }, el("button.term", { type: "button", "data-term": "stock" }, "Stock")));
  section.append(el("div.scroll", {}, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows.map((row) => row.element)))));
  return { showLive: (/** @type {import("./types.js").Live} */ live) => rows.forEach((row) => row.showLive(live)) };
}

class Row {
  /** @param {import("./types.js").Model} model @param {string} domain @param {(nodes: number[]) => void} show */
  constructor(model, domain, show) {
    this.name = countryName(domain);
    this.nodes = model.nodes.map((_, index) => index).filter((index) => model.nodes[index].domain === domain);
    const members = new Set(this.nodes);
    this.hops = model.ends.map((_, hop) => hop).filter((hop) => model.ends[hop].some((node) => members.has(node)));
    this.withKey = el("td.number");
    this.stock = el("td");
    const button = el("button.row", { type: "button" }, el("abbr", {}, domain), this.name);
    const inEurope = this.nodes.filter((index) => model.inEurope[index]);
    button.addEventListener("click", () => show(inEurope.length ? inEurope : this.nodes));
    this.element = el("tr", {}, el("td", {}, button), this.withKey, this.stock);
  }

  /** @param {import("./types.js").Live} live */
  showLive({ hops }) {
    const stocks = this.hops.map((hop) => fullness(hops.stock_bits[hop], hops.stock_high_bits));
    const mean = stocks.reduce((sum, full) => sum + full, 0) / Math.max(1, stocks.length);
    const distilled = this.hops.reduce((sum, hop) => sum + hops.distilled_bps[hop], 0);
    const withKey = stocks.filter((full) => full > 0).length;
    this.withKey.replaceChildren(el("span", {}, withKey), el("small", {}, ` / ${stocks.length}`));
    this.stock.replaceChildren(bar(mean, colourOf(mean), `stock ${Math.round(mean * 100)} per cent, distilling ${rate(distilled)}`));
  }
}
