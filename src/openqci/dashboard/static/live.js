/** The live figures: one event a second, and a slower way when no stream can be had. */

const POLL_MS = 3000;

/**
 * Follow the live figures for as long as the page is open.
 * @param {(live: import("./types.js").Live) => void} onFigures
 * @param {(connected: boolean) => void} onConnection
 */
export function followLive(onFigures, onConnection) {
  const stream = new EventSource("/api/live");
  stream.onmessage = (event) => {
    onConnection(true);
    onFigures(JSON.parse(event.data));
  };
  stream.onerror = () => {
    onConnection(false);
    // the browser retries by itself unless the answer was an error, such as 503: too many consoles
    if (stream.readyState === EventSource.CLOSED) pollLive(onFigures, onConnection);
  };
}

/** @param {(live: import("./types.js").Live) => void} onFigures @param {(connected: boolean) => void} onConnection */
async function pollLive(onFigures, onConnection) {
  try {
    onFigures(await fetchJson("/api/live?once=1"));
    onConnection(true);
  } catch {
    onConnection(false);
  }
  setTimeout(() => pollLive(onFigures, onConnection), POLL_MS);
}

/** @param {string} path @returns {Promise<any>} */
export async function fetchJson(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}
