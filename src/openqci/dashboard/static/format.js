/** Numbers as people read them. */

const PREFIXES = ["", "k", "M", "G", "T", "P"];
const GROUPED = new Intl.NumberFormat("en", { useGrouping: true, maximumFractionDigits: 0 });

/** @param {number} value @returns {[string, string]} three significant digits, and the prefix */
function scaled(value) {
  let step = 0;
  let rest = Math.abs(value);
  while (rest >= 999.5 && step < PREFIXES.length - 1) {
    rest /= 1000;
    step += 1;
  }
  const digits = step === 0 ? rest.toFixed(0) : rest.toPrecision(3);
  return [(value < 0 ? "−" : "") + digits, PREFIXES[step]];
}

/** @param {number} value @param {string} unit @returns {string} "4.21 Mbit/s" */
export function withUnit(value, unit) {
  const [digits, prefix] = scaled(value);
  return `${digits} ${prefix}${unit}`;
}

/** @param {number} bits */
export const bits = (bits) => withUnit(bits, "bit");

/** @param {number} bps */
export const rate = (bps) => withUnit(bps, "bit/s");

/** @param {number} count @returns {string} with thin spaces: "1 284 559" */
export const count = (count) => GROUPED.format(Math.floor(count)).replaceAll(",", " ");

/** @param {number} fraction @param {number} [digits] */
export const percent = (fraction, digits = 0) => `${(fraction * 100).toFixed(digits)} %`;

/** @param {number} seconds @returns {string} "01:02:03", with days in front from the second day on */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const days = Math.floor(whole / 86400);
  const parts = [whole / 3600, whole / 60, whole].map((part, index) =>
    String(Math.floor(part) % (index === 0 ? 24 : 60)).padStart(2, "0"));
  return (days ? `${days} d ` : "") + parts.join(":");
}

/** @param {number} value @returns {string} "1.0 × 10⁻¹⁰" for very small numbers */
export function tiny(value) {
  if (!(value > 0)) return "0";
  const exponent = Math.floor(Math.log10(value));
  const superscript = String(exponent).replace(/[-\d]/g, (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]);
  return `${(value / 10 ** exponent).toFixed(1)} × 10${superscript}`;
}

/** @param {string} code @returns {string} the country's name, or the code itself when it is none */
export function countryName(code) {
  const region = { EL: "GR", UK: "GB" }[code] ?? code;
  if (!/^[A-Z]{2}$/.test(region)) return code;
  return new Intl.DisplayNames(["en"], { type: "region" }).of(region) ?? code;
}

const KINDS = {
  capital_node: "Capital",
  trusted_node: "City, trusted node",
  ground_station: "Optical ground station",
  gateway: "Space gateway",
  satellite: "Satellite, trusted node",
  strategic_site: "Strategic site",
  border_node: "Border node",
  overseas_node: "Overseas node",
};

/** @param {{kind: string, generated?: boolean}} node */
export const kindName = (node) =>
  node.generated && node.kind !== "border_node" ? "Trusted node on a long link" : (KINDS[node.kind] ?? node.kind.replaceAll("_", " "));
