/** Land and sea: shapes made once in unit coordinates, drawn with any view. */

const { d3, topojson } = /** @type {any} */ (globalThis);

/** Side of the square, in unit coordinates, to which the framed nodes are fitted. */
export const UNIT = 1000;

/** Nothing farther from the centre is drawn; far enough for the widest screen. */
const CLIP_DEG = 62;

/** ISO numeric codes of the land that belongs to a domain, for the tint; N. Cyprus and the like stay plain. */
const ISO_NUMERIC = {
  AT: "040", BE: "056", BG: "100", CY: "196", CZ: "203", DE: "276", DK: "208", EE: "233", ES: "724", FI: "246",
  FR: "250", GR: "300", EL: "300", HR: "191", HU: "348", IE: "372", IT: "380", LT: "440", LU: "442", LV: "428",
  MT: "470", NL: "528", PL: "616", PT: "620", RO: "642", SE: "752", SI: "705", SK: "703", AX: "248",
};

/**
 * A projection that shows the given places in the square 0..UNIT, areas true, as the EU's own maps do.
 * @param {{lon: number, lat: number}[]} places @param {number} [spanDegMin] smallest extent
 */
export function projectionFor(places, spanDegMin = 0.8) {
  const [west, east] = middleAndReach(places.map((place) => place.lon), spanDegMin);
  const [south, north] = middleAndReach(places.map((place) => place.lat), spanDegMin);
  // few places may lie on a line or a point: the corners of their widened box keep the scale finite
  const corners = places.length > 40 ? [] : [[west, south], [west, north], [east, south], [east, north]];
  const all = { type: "MultiPoint", coordinates: [...corners, ...places.map(({ lon, lat }) => [lon, lat])] };
  return d3.geoAzimuthalEqualArea().rotate([-(west + east) / 2, -(south + north) / 2]).clipAngle(CLIP_DEG)
    .precision(0.4).fitExtent([[0, 0], [UNIT, UNIT]], all);
}

/** @param {number[]} values @param {number} spanMin @returns {[number, number]} */
function middleAndReach(values, spanMin) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const reach = Math.max(high - low, spanMin) / 2;
  return [(low + high) / 2 - reach, (low + high) / 2 + reach];
}

/** @typedef {{land: Path2D, members: Path2D, borders: Path2D, grid: Path2D}} Shapes */

/** @param {any} world topology of world-atlas @param {any} projection @param {string[]} domains @returns {Shapes} */
export function shapesOf(world, projection, domains) {
  const codes = new Set(domains.map((domain) => ISO_NUMERIC[domain]).filter(Boolean));
  const countries = world.objects.countries;
  const isMember = (/** @type {any} */ country) => codes.has(country.id);
  const members = { type: "GeometryCollection", geometries: countries.geometries.filter(isMember) };
  return {
    land: pathOf(projection, topojson.merge(world, countries.geometries)),
    members: pathOf(projection, topojson.merge(world, members.geometries)),
    borders: pathOf(projection, topojson.mesh(world, countries, (/** @type {any} */ a, /** @type {any} */ b) => a !== b)),
    grid: pathOf(projection, d3.geoGraticule().step([10, 10])()),
  };
}

/** @param {any} projection @param {any} geometry */
function pathOf(projection, geometry) {
  const path = new Path2D();
  d3.geoPath(projection, path)(geometry);
  return path;
}

const SEA = ["#0e1c2b", "#08111b"];
const LAND = "#121c27";
const MEMBER_LAND = "#213243";

/**
 * @param {CanvasRenderingContext2D} context with the device scale set
 * @param {Shapes} shapes @param {import("./types.js").View} view
 * @param {{width: number, height: number, ratio: number, glow: boolean}} surface
 */
export function drawBasemap(context, shapes, view, { width, height, ratio, glow }) {
  fillSea(context, width, height);
  context.save();
  context.setTransform(ratio * view.k, 0, 0, ratio * view.k, ratio * view.x, ratio * view.y);
  const line = (/** @type {number} */ widthPx, /** @type {string} */ colour) => {
    context.lineWidth = widthPx / view.k;
    context.strokeStyle = colour;
  };
  line(0.6, "rgb(140 180 215 / 0.055)");
  context.stroke(shapes.grid);
  if (glow) strokeGlow(context, shapes.land, view.k);
  context.fillStyle = LAND;
  context.fill(shapes.land);
  context.fillStyle = MEMBER_LAND;
  context.fill(shapes.members);
  line(0.75, "rgb(8 17 27 / 0.85)");
  context.stroke(shapes.borders);
  line(0.7, "rgb(120 165 200 / 0.30)");
  context.stroke(shapes.land);
  context.restore();
}

/** @param {CanvasRenderingContext2D} context @param {number} width @param {number} height */
function fillSea(context, width, height) {
  const sea = context.createRadialGradient(width / 2, height / 2, 0, width / 2, height / 2, Math.max(width, height) * 0.65);
  SEA.forEach((colour, index) => sea.addColorStop(index, colour));
  context.fillStyle = sea;
  context.fillRect(0, 0, width, height);
}

/** Shelving water along the coast: wide faint lines under the land, widest first.
 * @param {CanvasRenderingContext2D} context @param {Path2D} land @param {number} k */
function strokeGlow(context, land, k) {
  context.lineJoin = "round";
  for (const widthPx of [22, 13, 6]) {
    context.lineWidth = widthPx / k;
    context.strokeStyle = "rgb(70 130 180 / 0.055)";
    context.stroke(land);
  }
}
