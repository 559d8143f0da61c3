/** Pointer, wheel, pinch and keys, turned into pans, zooms and clicks. */

const WHEEL_SPEED = 0.0016;
const CLICK_PX = 5;
const KEY_PAN_PX = 70;

/**
 * @typedef {{pan: (dx: number, dy: number) => void, zoom: (factor: number, x: number, y: number) => void,
 *   click: (x: number, y: number) => void, hover: (x: number, y: number) => void, leave: () => void,
 *   everything: () => void}} Moves   coordinates in CSS pixels from the element's corner
 */

/** @param {HTMLElement} element @param {Moves} moves */
export function listenForMoves(element, moves) {
  listenForPointers(element, moves);
  element.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 20 : 1;
    moves.zoom(Math.exp(-event.deltaY * lines * WHEEL_SPEED), ...place(element, event));
  }, { passive: false });
  element.addEventListener("dblclick", (event) => moves.zoom(2, ...place(element, event)));
  element.addEventListener("keydown", (event) => {
    if (moveByKey(event.key, element, moves)) event.preventDefault();
  });
}

/** @param {HTMLElement} element @param {{clientX: number, clientY: number}} event @returns {[number, number]} */
function place(element, event) {
  const box = element.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

/** @param {HTMLElement} element @param {Moves} moves */
function listenForPointers(element, moves) {
  /** @type {Map<number, [number, number]>} */
  const down = new Map();
  let travelled = 0;

  element.addEventListener("pointerdown", (event) => {
    down.set(event.pointerId, place(element, event));
    element.setPointerCapture(event.pointerId);
    travelled = down.size > 1 ? Infinity : 0;
  });
  element.addEventListener("pointermove", (event) => {
    const now = place(element, event);
    const before = down.get(event.pointerId);
    if (!before) return moves.hover(...now);
    travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (down.size === 1 && travelled > CLICK_PX) moves.pan(now[0] - before[0], now[1] - before[1]);
    if (down.size === 2) pinch([...down.values()].find((point) => point !== before) ?? before, before, now, moves);
    down.set(event.pointerId, now);
  });
  const release = (/** @type {PointerEvent} */ event) => {
    if (!down.delete(event.pointerId)) return;
    if (event.type === "pointerup" && travelled <= CLICK_PX) moves.click(...place(element, event));
  };
  element.addEventListener("pointerup", release);
  element.addEventListener("pointercancel", release);
  element.addEventListener("pointerleave", () => moves.leave());
}

/** Zoom about the finger that rests. @param {[number, number]} resting @param {[number, number]} before
 * @param {[number, number]} now @param {Moves} moves */
function pinch(resting, before, now, moves) {
  const distance = (/** @type {[number, number]} */ at) => Math.hypot(at[0] - resting[0], at[1] - resting[1]);
  moves.zoom(distance(now) / Math.max(1, distance(before)), ...resting);
}

/** @param {string} key @param {HTMLElement} element @param {Moves} moves @returns {boolean} whether the key was ours */
function moveByKey(key, element, moves) {
  const centre = /** @type {const} */ ([element.clientWidth / 2, element.clientHeight / 2]);
  const actions = {
    ArrowLeft: () => moves.pan(KEY_PAN_PX, 0),
    ArrowRight: () => moves.pan(-KEY_PAN_PX, 0),
    ArrowUp: () => moves.pan(0, KEY_PAN_PX),
    ArrowDown: () => moves.pan(0, -KEY_PAN_PX),
    "+": () => moves.zoom(1.5, ...centre),
    "=": () => moves.zoom(1.5, ...centre),
    "-": () => moves.zoom(1 / 1.5, ...centre),
    0: () => moves.everything(),
  };
  actions[key]?.();
  return key in actions;
}
