/** A node: its KME, the applications it serves, and the key on each of its hops. */

import { bar, el } from "./dom.js";
import { bits, count, countryName, kindName, percent } from "./format.js";
import { facts, figure, heading, section, term } from "./panel-parts.js";
import { colourOf, DISTILLING, fullness } from "./scale.js";

const PAIRS_MAX = 12;

/** @param {import("./types.js").Model} model @param {any} node @param {import("./types.js").Live | null} live @returns {HTMLElement[]} */
export function nodeBody(model, node, live) {
  const index = model.indexOf(node.site_id);
  const known = model.nodes[index];
  const hops = model.hopsOfNode[index];
  return [
    heading(kindName(known), known.name, `${countryName(known.domain)} · ${degrees(known.lat, "N", "S")} ${degrees(known.lon, "E", "W")}`),
    model.isWaiting(index) ? el("p.waiting", {}, "No fibre joins this node to the mainland. It waits for the space segment.") : el("p.none"),
    isStopped(node, live) ? el("p.trouble", {}, "This node is stopped (an injected fault): it answers nothing and its hops make no key.") : el("p.none"),
    figuresSection(node, hops, live),
    hopsSection(model, index, hops, live),
    pairsSection(node),
    section("Key management entity", facts([
      ["KME", el("code", {}, node.kme_id)], ["ETSI GS QKD 014", el("code", {}, node.url)],
      ["Applications (SAE)", node.saes?.length ? el("span", {}, ...node.saes.map((/** @type {string} */ sae) => el("code", {}, sae))) : "none enrolled"],
      ["Id", el("code", {}, node.site_id)],
      ...(node.beside?.length ? [["In the same site, of another domain", el("span", {}, ...node.beside.map((/** @type {string} */ id) => el("code", {}, id)))]] : []),
    ])),
  ];
}

/** @param {any} node @param {import("./types.js").Live | null} live */
const isStopped = (node, live) => (live?.faults ?? []).some(({ kind, sites }) => kind === "stop" && sites.includes(node.site_id));

/** @param {number} angle @param {string} positive @param {string} negative */
const degrees = (angle, positive, negative) => `${Math.abs(angle).toFixed(2)}° ${angle < 0 ? negative : positive}`;

/** @param {any} node @param {number[]} hops @param {import("./types.js").Live | null} live */
function figuresSection(node, hops, live) {
  const stock = hops.reduce((sum, hop) => sum + (live?.hops.stock_bits[hop] ?? 0), 0);
  return el("section.figures", {},
    figure(term("stock", "Key on its hops"), bits(stock)),
    figure(term("delivered", "Keys delivered"), count(node.keys_delivered ?? 0)));
}

/** @param {import("./types.js").Model} model @param {number} index @param {number[]} hops
 * @param {import("./types.js").Live | null} live */
function hopsSection(model, index, hops, live) {
  if (!hops.length) return section("Hops", el("p.quiet", {}, "None."));
  return section(`${hops.length} ${hops.length === 1 ? "hop" : "hops"}, towards`, el("ul.hops", {}, ...hops.map((hop) => hopRow(model, index, hop, live))));
}

/** @param {import("./types.js").Model} model @param {number} index @param {number} hop
 * @param {import("./types.js").Live | null} live */
function hopRow(model, index, hop, live) {
  const { end: towards } = model.along(index, model.otherEnd(hop, index));
  const stock = live?.hops.stock_bits[hop] ?? 0;
  const full = fullness(stock, live?.hops.stock_high_bits ?? 0);
  const distilling = live?.hops.state[hop] === DISTILLING;
  return el("li", {}, el("button", { type: "button", "data-hop": model.hops[hop].link_id },
    el("span.to", {}, model.nodes[towards].name, distilling ? el("i.sample.pulse", { title: "distilling now" }) : null),
    el("span.quiet", {}, `${model.hops[hop].length_km.toFixed(0)} km`),
    bar(full, colourOf(full), `stock ${percent(full)}`), el("b", {}, bits(stock))));
}

/** @param {any} node */
function pairsSection(node) {
  const pairs = node.pair_stocks ?? [];
  if (!pairs.length) return el("section.none");
  const rows = pairs.slice(0, PAIRS_MAX).map((/** @type {any} */ pair) => [el("span", {}, `${pair.master} → ${pair.slave}`), bits(pair.stock_bits)]);
  const more = pairs.length > PAIRS_MAX ? el("p.quiet", {}, `and ${pairs.length - PAIRS_MAX} more`) : null;
  return section("End-to-end key ready", facts(rows), more);
}
