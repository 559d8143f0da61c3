/** Small pieces of DOM. Text only ever enters as text nodes, so that no name can become markup. */

/**
 * Make an element: `el("p.quiet", {id: "x"}, "text", child)`.
 * @param {string} selector tag and classes
 * @param {Record<string, string | number | boolean | undefined>} [attributes] false and undefined are left out
 * @param {...(Node | string | number | null | undefined)} children
 * @returns {HTMLElement}
 */
export function el(selector, attributes = {}, ...children) {
  const [tag, ...classes] = selector.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map(asNode));
  return element;
}

/** @param {Node | string | number} child @returns {Node} */
function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}

/** @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no #${id}`);
  return element;
}

/**
 * Make `current` look like `wanted` while keeping what is the same: focus, scroll and hover survive.
 * @param {Element} current @param {Element} wanted
 */
export function morph(current, wanted) {
  morphAttributes(current, wanted);
  const before = [...current.childNodes];
  const after = [...wanted.childNodes];
  after.forEach((node, index) => morphChild(current, before[index], node));
  before.slice(after.length).forEach((node) => node.remove());
}

/** @param {Element} parent @param {ChildNode | undefined} current @param {ChildNode} wanted */
function morphChild(parent, current, wanted) {
  if (!current) parent.append(wanted);
  else if (current.nodeName !== wanted.nodeName) current.replaceWith(wanted);
  else if (current instanceof Element && wanted instanceof Element) morph(current, wanted);
  else if (current.nodeValue !== wanted.nodeValue) current.nodeValue = wanted.nodeValue;
}

/** @param {Element} current @param {Element} wanted */
function morphAttributes(current, wanted) {
  for (const { name, value } of [...wanted.attributes]) {
    if (current.getAttribute(name) !== value) current.setAttribute(name, value);
  }
  for (const { name } of [...current.attributes]) {
    if (!wanted.hasAttribute(name)) current.removeAttribute(name);
  }
}

/** A bar that shows a fraction; an SVG, because the page's policy forbids inline styles.
 * @param {number} fraction 0 to 1 @param {string} colour @param {string} label for screen readers */
export function bar(fraction, colour, label) {
  const svg = svgElement("svg", { class: "meter", viewBox: "0 0 100 6", preserveAspectRatio: "none" });
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const width = (Math.max(0, Math.min(1, fraction)) * 100).toFixed(2);
  svg.append(svgElement("rect", { width: 100, height: 6, class: "meter-ground" }));
  svg.append(svgElement("rect", { width, height: 6, fill: colour }));
  return svg;
}

/** @param {string} tag @param {Record<string, string | number>} attributes */
export function svgElement(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}

/** @returns {boolean} whether the user asked the system for less motion */
export function prefersStillness() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}
