/** Satellites: they move with every look at the network, and show where they fly and whom they serve. */

import { SPACE_COLOUR } from "./scale.js";

const CONTACT_PX = 9;

/** Hops of satellites are there while their light runs; lines over half the Earth would tell nobody anything.
 * @param {import("./types.js").Model} model @param {import("./types.js").Live | null} live
 * @param {number} hop @returns {boolean} */
export function isHopShown(model, live, hop) {
  const { type, a, link_id: link } = model.hops[hop];
  if (type !== "satellite") return true;
  const satellite = live?.satellites?.find((each) => each.satellite === a);
  return satellite?.serving != null && link === `${a}--${satellite.serving}`;
}

/** Put the marks where the satellites are now; out of sight on the other side of the Earth.
 * @param {import("./types.js").Model} model @param {([number, number] | null)[]} units
 * @param {import("./types.js").Live} live @param {(place: [number, number]) => [number, number] | null} project */
export function moveSatellites(model, units, live, project) {
  for (const { satellite, lon, lat } of live.satellites ?? []) {
    const index = model.nodeIndex.get(satellite);
    if (index !== undefined) units[index] = project([lon, lat]);
  }
}

/** The way over ground that is ahead, and a ring while the radio reaches it.
 * @param {CanvasRenderingContext2D} context @param {import("./types.js").Model} model
 * @param {import("./layers.js").Place} place @param {import("./types.js").Live} live
 * @param {(place: [number, number]) => [number, number] | null} toScreen */
export function drawFlights(context, model, place, live, toScreen) {
  for (const each of live.satellites ?? []) {
    drawTrack(context, each.track.map(toScreen));
    const at = place(model.indexOf(each.satellite));
    if (at && each.in_contact) drawRing(context, at);
  }
}

/** @param {CanvasRenderingContext2D} context @param {([number, number] | null)[]} points */
function drawTrack(context, points) {
  context.beginPath();
  points.forEach((point, index) => {
    if (!point) return;
    if (points[index - 1]) context.lineTo(...point);
    else context.moveTo(...point);
  });
  context.setLineDash([2, 6]);
  context.globalAlpha = 0.7;
  context.strokeStyle = SPACE_COLOUR;
  context.lineWidth = 1.3;
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 1;
}

/** @param {CanvasRenderingContext2D} context @param {[number, number]} at */
function drawRing(context, at) {
  context.beginPath();
  context.arc(...at, CONTACT_PX, 0, 2 * Math.PI);
  context.strokeStyle = SPACE_COLOUR;
  context.lineWidth = 1.2;
  context.stroke();
}
