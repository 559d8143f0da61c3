/** Find a node by name or id: a combobox after the ARIA authoring practices. */

import { el } from "./dom.js";
import { countryName, kindName } from "./format.js";

const RESULTS_MAX = 8;

/** @param {HTMLElement} container @param {import("./types.js").Model} model @param {(siteId: string) => void} select */
export function makeSearch(container, model, select) {
  const input = /** @type {HTMLInputElement} */ (el("input", {
    type: "search", placeholder: "Find a node…   /", role: "combobox", "aria-label": "Find a node", "aria-expanded": "false",
    "aria-controls": "found", "aria-autocomplete": "list", autocomplete: "off", spellcheck: "false",
  }));
  const list = el("ul", { id: "found", role: "listbox", hidden: true });
  container.append(input, list);
  const entries = model.byRank.map((index) => ({ node: model.nodes[index], words: plain(`${model.nodes[index].name} ${model.nodes[index].site_id}`) }));
  let chosen = 0;

  const close = () => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
  };
  const choose = (/** @type {string} */ siteId) => {
    close();
    input.value = "";
    input.blur();
    select(siteId);
  };
  const mark = () => [...list.children].forEach((item, index) => {
    item.setAttribute("aria-selected", String(index === chosen));
    if (index === chosen) input.setAttribute("aria-activedescendant", item.id);
  });
  const search = () => {
    const found = matches(entries, plain(input.value));
    list.replaceChildren(...found.map((node, index) => option(node, index, choose)));
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(found.length > 0));
    chosen = 0;
    mark();
  };
  input.addEventListener("input", search);
  input.addEventListener("blur", () => setTimeout(close, 150));
  input.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps) {
      chosen = Math.max(0, Math.min(list.children.length - 1, chosen + steps[event.key]));
      mark();
    } else if (event.key === "Enter" && !list.hidden) list.children[chosen]?.dispatchEvent(new MouseEvent("mousedown"));
    else if (event.key === "Escape" && !list.hidden) close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target === input) return;
    event.preventDefault();
    input.focus();
  });
}

/** Words beginning with the text first, then words containing it; important nodes first.
 * @param {{node: import("./types.js").NetworkNode, words: string}[]} entries @param {string} text */
function matches(entries, text) {
  if (!text) return [];
  const beginning = entries.filter(({ words }) => words.startsWith(text) || words.includes(` ${text}`));
  const within = entries.filter((entry) => entry.words.includes(text) && !beginning.includes(entry));
  return [...beginning, ...within].slice(0, RESULTS_MAX).map(({ node }) => node);
}

/** @param {import("./types.js").NetworkNode} node @param {number} index @param {(siteId: string) => void} choose */
function option(node, index, choose) {
  const item = el("li", { id: `found-${index}`, role: "option" }, el("b", {}, node.name),
    el("span", {}, `${kindName(node)} · ${countryName(node.domain)}`));
  item.addEventListener("mousedown", () => choose(node.site_id));
  return item;
}

/** Without accents and case: "Gdańsk" is found as "gdansk". @param {string} text */
const plain = (text) => text.normalize("NFD").replace(/\p{Diacritic}/gu, "").replaceAll("ł", "l").replaceAll("ø", "o").toLowerCase().trim();
