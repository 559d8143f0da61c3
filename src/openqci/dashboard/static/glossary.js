/** The words of the trade in plain language, and the little window that shows them. */

import { byId } from "./dom.js";

export const GLOSSARY = {
  simulated: ["Simulated photons", "No light is sent. Photons, fibres and detectors are computed; everything after the detector is real: error correction, privacy amplification, key stores, relay and delivery. No key of this network protects anything."],
  stock: ["Key in stock", "Secret bits stored at both ends of a hop and not spent yet. Both ends hold the same bits. A hop whose stock is full rests until somebody spends key."],
  distilled: ["Distilling now", "Secret bits per second that are being made at this moment. Production follows demand, so this is far below what is possible once the stocks are full."],
  possible: ["Possible rate", "What the QKD modules could make if they never rested: computed from source, fibre loss and detector."],
  secret: ["Secret bits", "What is left after error correction and privacy amplification: bits about which an eavesdropper knows nothing, but for a chance bounded by epsilon."],
  qber: ["QBER", "Quantum bit error rate: the share of sifted bits in which the two ends differ. Noise makes a few per cent. Somebody who measures the photons makes it rise, and above the limit no key is kept."],
  sifted: ["Sifted bits", "Detections for which both ends used the key basis. Raw material: correct, compare and shorten it to get secret bits."],
  leak: ["Disclosed bits", "Spoken in public to find and check errors. An eavesdropper heard them, so as many bits are cut from the key."],
  detections: ["Detections", "Clicks of the receiver's detectors. Most photons are lost in the fibre; the loss grows tenfold every 50 km."],
  epsilon: ["Epsilon", "The proven bound on the chance that a block's key is anything but perfect. It adds up over hops and blocks."],
  proof: ["Security proof", "The published theorem that says how many bits of a block may be kept, for finite statistics."],
  trusted: ["Trusted node", "Fibre absorbs photons, so long links are cut into spans. The node between two spans holds the key in clear for a moment and must be guarded."],
  delivered: ["Keys delivered", "Keys handed to applications over ETSI GS QKD 014, each one once to each side."],
  relay: ["Last key", "A key for two distant nodes: made on the first hop, then carried over every further hop under a one-time pad of that hop's key. Pads are destroyed when used."],
  attacked: ["Attacked", "The error rate of this hop has risen above the limit, as it does when somebody measures its photons. No key is made of such a block. The hop is closed, what it has in stock is held, and keys go another way until a person has looked."],
  initiator: ["Split by direction", "Each hop's key is split in two: each half may be spent by one end only, so that the two ends never pick the same bits."],
  demand: ["Spent", "Key that relays and applications take from the stocks."],
};

/** Show an explanation when a term has the pointer or the focus. */
export function explainTerms() {
  const box = byId("explanation");
  const show = (/** @type {Event} */ event) => {
    const term = event.target instanceof Element ? event.target.closest("[data-term]") : null;
    const entry = GLOSSARY[term?.getAttribute("data-term") ?? ""];
    box.hidden = !entry;
    if (!entry || !term) return;
    box.replaceChildren(Object.assign(document.createElement("b"), { textContent: entry[0] }), entry[1]);
    // under the whole tile in the header, so that its number stays in sight
    placeBeside(box, (term.closest(".tile") ?? term).getBoundingClientRect());
  };
  for (const event of ["pointerover", "focusin", "click"]) document.addEventListener(event, show);
  document.addEventListener("focusout", () => { box.hidden = true; });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") box.hidden = true; });
}

/** @param {HTMLElement} box @param {DOMRect} beside */
function placeBeside(box, beside) {
  const [width, height] = [box.offsetWidth, box.offsetHeight];
  const below = beside.bottom + 8 + height < innerHeight;
  box.style.left = `${Math.max(8, Math.min(innerWidth - width - 8, beside.left))}px`;
  box.style.top = `${below ? beside.bottom + 8 : beside.top - height - 8}px`;
}
