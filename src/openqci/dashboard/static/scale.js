/**
 * The colour of a stock: empty is a dull grey-red, half is amber, full is cyan.
 *
 * Red against green is avoided: the scale runs from red-orange to blue-cyan and gets lighter on the way,
 * so that it stays readable for the colour-blind and in grey. It is not linear in bits: the first tenth of
 * a stock matters most, because it decides between "no key" and "some key".
 */

const STOPS = [[0, 146, 82, 92], [0.22, 222, 104, 64], [0.5, 243, 178, 76], [0.76, 190, 222, 178], [1, 64, 214, 232]];

export const BINS = 16;
export const EMPTY_COLOUR = "rgb(146 82 92)";
export const DOWN_COLOUR = "#ff5d8f";
export const ROUTE_COLOUR = "#c8a8ff";
export const SPACE_COLOUR = "#b6a4ff";

/** What the numbers in `live.hops.state` mean. */
export const STATES = ["empty", "distilling", "resting, stock full", "waiting for its turn", "down"];
export const DISTILLING = 1;
export const DOWN = 4;

/** @param {number} fullness 0 to 1 @returns {string} */
export function stockColour(fullness) {
  const at = Math.max(0, Math.min(1, fullness));
  const above = Math.max(1, STOPS.findIndex((stop) => stop[0] >= at));
  const [low, high] = [STOPS[above - 1], STOPS[above]];
  const share = (at - low[0]) / (high[0] - low[0]);
  const [red, green, blue] = [1, 2, 3].map((part) => Math.round(low[part] + share * (high[part] - low[part])));
  return `rgb(${red} ${green} ${blue})`;
}

/** Colour of each bin; bin 0 is kept for hops with no key at all. */
export const BIN_COLOURS = Array.from({ length: BINS }, (_, bin) => stockColour(bin / (BINS - 1)));

/** @param {number} stockBits @param {number} highBits full stock @returns {number} 0 to 1 */
export function fullness(stockBits, highBits) {
  return highBits > 0 ? Math.min(1, stockBits / highBits) : 0;
}

/** @param {number} full 0 to 1 @returns {number} 0 to BINS - 1; any key at all is at least 1 */
export function stockBin(full) {
  return full <= 0 ? 0 : Math.max(1, Math.round(Math.sqrt(full) * (BINS - 1)));
}

/** @param {number} full 0 to 1 */
export const colourOf = (full) => BIN_COLOURS[stockBin(full)];
