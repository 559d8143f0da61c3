/** The side panel: one node or one hop, with its figures of this second. */

import { byId, el, morph } from "./dom.js";
import { fetchJson } from "./live.js";
import { hopBody } from "./panel-hop.js";
import { nodeBody } from "./panel-node.js";

const REFRESH_MS = 1000;

export class Panel {
  /** @param {import("./types.js").Model} model @param {(thing: import("./types.js").Thing | null) => void} select */
  constructor(model, select) {
    this.model = model;
    this.element = byId("panel");
    /** @type {import("./types.js").Thing | null} */
    this.thing = null;
    this.opened = 0;
    this.element.addEventListener("click", (event) => this.clicked(event, select));
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") select(null); });
    setInterval(() => { if (this.thing && !document.hidden) this.refresh(); }, REFRESH_MS);
  }

  /** @param {import("./types.js").Thing | null} thing @param {import("./types.js").Live | null} live */
  show(thing, live) {
    this.thing = thing;
    this.live = live;
    this.opened += 1;
    this.element.hidden = !thing;
    document.body.classList.toggle("panel-open", thing !== null);
    if (!thing) return;
    this.element.scrollTop = 0;
    this.refresh();
  }

  /** @param {import("./types.js").Live} live */
  showLive(live) {
    this.live = live;
  }

  async refresh() {
    const { thing, opened } = this;
    if (!thing) return;
    try {
      const figures = await fetchJson(`/api/${thing.kind}s/${encodeURIComponent(thing.id)}`);
      if (opened === this.opened) this.draw(thing, figures);
    } catch {
      if (opened === this.opened && !this.element.childElementCount) this.draw(thing, null);
    }
  }

  /** @param {import("./types.js").Thing} thing @param {any} figures */
  draw(thing, figures) {
    const close = el("button.close", { type: "button", "data-close": true, "aria-label": "Close details" }, "×");
    const live = this.live ?? null;
    const body = figures === null ? [el("p", {}, "No figures could be had. Retrying.")]
      : thing.kind === "node" ? nodeBody(this.model, figures, live) : hopBody(this.model, figures, live);
    morph(this.element, el("aside.panel", { id: "panel", "aria-label": "Details", "data-thing": thing.id }, close, ...body));
  }

  /** One listener for all buttons: the content is replaced every second.
   * @param {Event} event @param {(thing: import("./types.js").Thing | null) => void} select */
  clicked(event, select) {
    const target = event.target instanceof Element ? event.target.closest("[data-node],[data-hop],[data-close]") : null;
    const [node, hop] = [target?.getAttribute("data-node"), target?.getAttribute("data-hop")];
    if (node) select({ kind: "node", id: node });
    else if (hop) select({ kind: "hop", id: hop });
    else if (target) select(null);
  }
}
