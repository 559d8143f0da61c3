/** What has happened, in words, the newest first. A click shows where. */

import { byId, el } from "./dom.js";
import { clock } from "./format.js";

const EVENTS_MAX = 40;
const TONES = { bad: "trouble", note: "note", good: "good news" };

export class EventLog {
  /**
   * @param {{select: (thing: import("./types.js").Thing) => void, route: (sites: string[]) => void}} listener
   */
  constructor(listener) {
    this.listener = listener;
    this.element = byId("events");
    this.list = el("ol", { role: "log", "aria-label": "Events, the newest first", tabindex: 0 });
    this.toggle = el("button.toggle", { type: "button", "aria-expanded": true, "aria-controls": "events-list" });
    this.list.id = "events-list";
    this.element.append(el("h2", {}, this.toggle), this.list);
    this.toggle.addEventListener("click", () => this.fold(!this.list.hidden));
    /** @type {Map<number, import("./types.js").NetworkEvent>} */
    this.shown = new Map();
    this.list.addEventListener("click", (event) => this.clicked(event));
  }

  /** @param {import("./types.js").Live} live */
  showLive(live) {
    const events = live.events ?? [];
    const newest = Math.max(0, ...this.shown.keys());
    // after a restart of the network its numbers begin anew
    if (events.length && events[events.length - 1].number < newest) this.forget();
    const fresh = events.filter(({ number }) => !this.shown.has(number));
    for (const event of fresh) this.add(event);
    this.element.hidden = this.shown.size === 0;
    if (fresh.length) this.title();
  }

  /** @param {import("./types.js").NetworkEvent} event */
  add(event) {
    this.shown.set(event.number, event);
    const where = event.route.length || event.links.length || event.sites.length;
    const words = [el("i.tone", { "aria-hidden": true }), el("span.hidden", {}, TONES[event.tone] ?? ""), el("time", {}, clock(event.at_s)), el("span", {}, event.text)];
    const body = where ? el("button", { type: "button", "data-event": event.number }, ...words) : el("p", {}, ...words);
    this.list.prepend(el("li", { class: event.tone, "data-kind": event.kind }, body));
    while (this.list.childElementCount > EVENTS_MAX) this.list.lastElementChild?.remove();
    while (this.shown.size > EVENTS_MAX) this.shown.delete(Math.min(...this.shown.keys()));
  }

  forget() {
    this.shown.clear();
    this.list.replaceChildren();
  }

  title() {
    const count = this.shown.size;
    this.toggle.textContent = count === 1 ? "1 event" : `${count} events`;
  }

  /** @param {boolean} folded */
  fold(folded) {
    this.list.hidden = folded;
    this.toggle.setAttribute("aria-expanded", String(!folded));
  }

  /** @param {Event} event */
  clicked(event) {
    const target = event.target instanceof Element ? event.target.closest("[data-event]") : null;
    const about = this.shown.get(Number(target?.getAttribute("data-event")));
    if (!about) return;
    if (about.route.length) this.listener.route(about.route);
    else if (about.links.length) this.listener.select({ kind: "hop", id: about.links[0] });
    else if (about.sites.length) this.listener.select({ kind: "node", id: about.sites[0] });
  }
}
