/** Pieces that both kinds of panel share. */

import { el } from "./dom.js";

/** @param {string} kind @param {string} name @param {string | Node} [below] */
export function heading(kind, name, below) {
  return el("header", {}, el("p.kind", {}, kind), el("h2", {}, name), below ? el("p.quiet", {}, below) : null);
}

/** @param {string} title @param {...(Node | string | null)} content */
export function section(title, ...content) {
  return el("section", {}, el("h3", {}, title), ...content);
}

/** Rows of name and value. @param {[string | Node, string | Node][]} rows */
export function facts(rows) {
  return el("dl.facts", {}, ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

/** @param {string} key of the glossary @param {string} text */
export function term(key, text) {
  return el("button.term", { type: "button", "data-term": key }, text);
}

/** @param {string} siteId @param {string} name */
export function nodeLink(siteId, name) {
  return el("button.link", { type: "button", "data-node": siteId }, name);
}

/** A big number with words under it. @param {string | Node} name @param {string} value @param {string} [note] */
export function figure(name, value, note) {
  return el("div.figure", {}, el("span", {}, name), el("b", {}, value), note ? el("small", {}, note) : null);
}
