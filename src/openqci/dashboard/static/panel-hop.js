/** A hop: how full it is, what it could do, and how its photons became key. */

import { bar, el } from "./dom.js";
import { bits, count, percent, rate, tiny } from "./format.js";
import { facts, figure, heading, nodeLink, section, term } from "./panel-parts.js";
import { colourOf, fullness, STATES } from "./scale.js";

/** Above it the distillation gives a block up: `QBER_MAX` of `twin/block.py`. */
const QBER_LIMIT = 0.09;

const TYPES = { national: "National hop", metro: "Metropolitan hop", cross_border: "Cross-border hop", ogs_backhaul: "Ground-station backhaul", overseas: "Overseas hop" };

/** @param {import("./types.js").Model} model @param {any} hop @param {import("./types.js").Live | null} live @returns {HTMLElement[]} */
export function hopBody(model, hop, live) {
  const index = model.hopIndex.get(hop.link_id) ?? 0;
  const known = model.hops[index];
  const state = STATES[live?.hops.state[index] ?? -1] ?? String(hop.state);
  return [
    heading(TYPES[known.type] ?? "Hop", model.hopName(hop), `${hop.length_km.toFixed(1)} km of fibre · ${hop.loss_db.toFixed(1)} dB · ${state}`),
    troubleNotice(hop),
    stockSection(model, hop, live),
    ratesSection(hop),
    funnelSection(hop),
    lastBlockSection(hop),
    section("About", facts([
      ["Ends", el("span", {}, nodeLink(hop.a, model.nameOf(hop.a)), ", ", nodeLink(hop.b, model.nameOf(hop.b)))],
      ["QKD module", hop.device], [term("proof", "Proof"), hop.proof],
      [term("epsilon", "Epsilon per block"), tiny(hop.epsilon_per_block)],
      ["Blocks", `${count(hop.blocks)} distilled, ${count(hop.blocks_aborted)} aborted`],
      ["Id", el("code", {}, hop.link_id)],
    ])),
  ];
}

/** Why relays must not use the hop, and whether somebody listens. @param {any} hop */
function troubleNotice(hop) {
  const heard = hop.intercepted ? `An eavesdropper measures ${percent(hop.intercepted)} of its photons (an injected fault). ` : "";
  const closed = hop.trouble ? `No relay uses it: ${hop.trouble}.` : "";
  return heard || closed ? el("p.trouble", {}, heard + closed) : el("p.none");
}

/** @param {import("./types.js").Model} model @param {any} hop @param {import("./types.js").Live | null} live */
function stockSection(model, hop, live) {
  const high = live?.hops.stock_high_bits ?? 0;
  const full = fullness(hop.stock_bits, high);
  const halves = Object.entries(hop.stock_by_initiator ?? {}).map(([site, stock]) => {
    const share = fullness(Number(stock), high / 2);
    return el("div.half", {}, el("span", {}, `for ${model.nameOf(site)}`), bar(share, colourOf(share), percent(share)), el("b", {}, bits(Number(stock))));
  });
  return section("Key in stock",
    el("div.stock", {}, el("b", {}, bits(hop.stock_bits)), el("span", {}, high ? `${percent(full)} of ${bits(high)}` : "")),
    bar(full, colourOf(full), `stock ${percent(full)}`),
    el("p.quiet", {}, term("initiator", "Split by direction")), ...halves);
}

/** @param {any} hop */
function ratesSection(hop) {
  const limit = hop.qber === null || hop.qber === undefined ? 0 : hop.qber / QBER_LIMIT;
  return el("section.figures", {},
    figure(term("distilled", "Distilling now"), rate(hop.distilled_bps)),
    figure(term("possible", "Possible"), rate(hop.possible_bps)),
    figure(term("qber", "QBER"), limit ? percent(hop.qber, 2) : "no block yet", limit ? `bound ${percent(QBER_LIMIT)}` : undefined),
    figure(term("secret", "Secret bits"), bits(hop.secret_bits_total), "since the network began"));
}

/** From clicks to key: how much each stage keeps. The bars are linear in bits. @param {any} hop */
function funnelSection(hop) {
  if (!hop.detections_total) return section("From photons to key", el("p.quiet", {}, "No block has been distilled on this hop yet. It is made when somebody needs it."));
  const stages = [
    ["detections", "Detections", hop.detections_total, "#7f9bb5"], ["sifted", "Sifted bits", hop.sifted_bits_total, "#9fb6c9"],
    ["leak", "Disclosed to correct", hop.leak_bits_total, "#d6653e"], ["secret", "Secret bits kept", hop.secret_bits_total, "#40d6e8"],
  ];
  return section("From photons to key", el("div.funnel", {}, ...stages.flatMap(([key, name, amount, colour]) => [
    term(key, name), bar(amount / hop.detections_total, colour, `${name}: ${count(amount)}`), el("b", {}, bits(amount).replace(/ bit$/, "").replace(/bit$/, "")),
  ])));
}

/** @param {any} hop */
function lastBlockSection(hop) {
  const block = hop.last_block;
  if (!block || !Object.keys(block).length) return el("section.none");
  const rows = Object.entries(block).filter(([, value]) => ["number", "string"].includes(typeof value));
  return el("section", {}, el("details", {}, el("summary", {}, "Last block, every count"),
    facts(rows.map(([name, value]) => [name.replaceAll("_", " "), readable(value)]))));
}

/** @param {any} value */
function readable(value) {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return count(value);
  return Math.abs(value) < 1e-3 ? tiny(value) : value.toPrecision(4);
}
