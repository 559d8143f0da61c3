/** The network as the map needs it: indices, neighbours, and which nodes no fibre joins to the mainland. */

/** Continental Europe; what lies outside is shown in the insets. */
const EUROPE = { lonMin: -12, lonMax: 36, latMin: 33.5, latMax: 72 };

/** @param {{kind: string}} node */
const isSatellite = ({ kind }) => kind === "satellite";

const RANK = ["satellite", "capital_node", "overseas_node", "gateway", "ground_station", "trusted_node", "strategic_site"];

/** @param {{lon: number, lat: number}} place */
const inEurope = ({ lon, lat }) =>
  lon >= EUROPE.lonMin && lon <= EUROPE.lonMax && lat >= EUROPE.latMin && lat <= EUROPE.latMax;

export class Model {
  /** @param {import("./types.js").Network} network */
  constructor(network) {
    this.network = network;
    this.nodes = network.nodes;
    this.hops = network.hops;
    this.nodeIndex = new Map(this.nodes.map((node, index) => [node.site_id, index]));
    this.hopIndex = new Map(this.hops.map((hop, index) => [hop.link_id, index]));
    this.ends = this.hops.map((hop) => [this.indexOf(hop.a), this.indexOf(hop.b)]);
    this.hopsOfNode = hopsOfNode(this.nodes.length, this.ends);
    const onGround = this.nodes.filter((node) => !isSatellite(node));
    const framed = onGround.some(inEurope) ? inEurope : () => true;
    this.inEurope = this.nodes.map((node) => !isSatellite(node) && framed(node));
    this.component = components(this.nodes.length, this.ends);
    this.mainland = mostCommon(this.component);
    this.byRank = this.nodes.map((_, index) => index).sort((a, b) => this.rank(a) - this.rank(b));
  }

  /** @param {string} siteId */
  indexOf(siteId) {
    const index = this.nodeIndex.get(siteId);
    if (index === undefined) throw new Error(`unknown site ${siteId}`);
    return index;
  }

  /** Nodes inside the frame of the map, which is fitted to them. */
  frameNodes() {
    return this.nodes.filter((_, index) => this.inEurope[index]);
  }

  /** Nodes for the insets. */
  overseas() {
    return this.nodes.map((_, index) => index).filter((index) => !this.inEurope[index] && !isSatellite(this.nodes[index]));
  }

  /** Whether a node waits for a satellite: no fibre joins it to the largest connected part. @param {number} index */
  isWaiting(index) {
    return this.component[index] !== this.mainland;
  }

  /** One node for each island of the frame that waits: the most important one. */
  waitingIslands() {
    const seen = new Set();
    return this.byRank.filter((index) => {
      const first = this.inEurope[index] && this.isWaiting(index) && !seen.has(this.component[index]);
      if (first) seen.add(this.component[index]);
      return first;
    });
  }

  /** Smaller is more important: kind first, then how many hops meet here. @param {number} index */
  rank(index) {
    const node = this.nodes[index];
    const kind = node.generated ? RANK.length : RANK.indexOf(node.kind);
    return (kind < 0 ? RANK.length - 1 : kind) * 100 - Math.min(node.degree, 50);
  }

  /** A site's name, or its id when it is not ours. @param {string} siteId */
  nameOf(siteId) {
    const index = this.nodeIndex.get(siteId);
    return index === undefined ? siteId : this.nodes[index].name;
  }

  /** "Lisbon – Évora", or "Berlin – Szczecin, span 1 of 3" for a hop between trusted nodes on a long link.
   * @param {{a: string, b: string}} hop */
  hopName(hop) {
    const [a, b] = [this.indexOf(hop.a), this.indexOf(hop.b)];
    const [back, ahead] = [this.along(b, a), this.along(a, b)];
    const name = `${this.nodes[back.end].name} – ${this.nodes[ahead.end].name}`;
    return back.spans + ahead.spans ? `${name}, span ${back.spans + 1} of ${back.spans + ahead.spans + 1}` : name;
  }

  /** Go on past `next` over the trusted nodes of a long link, to the first node with a name of its own.
   * @param {number} from @param {number} next @returns {{end: number, spans: number}} spans passed after `next` */
  along(from, next) {
    let spans = 0;
    while (this.nodes[next].generated && this.hopsOfNode[next].length === 2 && spans < this.nodes.length) {
      const onward = this.hopsOfNode[next].map((hop) => this.otherEnd(hop, next)).find((end) => end !== from);
      if (onward === undefined) break;
      [from, next, spans] = [next, onward, spans + 1];
    }
    return { end: next, spans };
  }

  /** @param {number} hop @param {number} node */
  otherEnd(hop, node) {
    return this.ends[hop][0] === node ? this.ends[hop][1] : this.ends[hop][0];
  }
}

/** @param {number} nodes @param {number[][]} ends @returns {number[][]} */
function hopsOfNode(nodes, ends) {
  const found = Array.from({ length: nodes }, () => /** @type {number[]} */ ([]));
  ends.forEach((pair, hop) => pair.forEach((node) => found[node].push(hop)));
  return found;
}

/** Connected components by union-find. @param {number} nodes @param {number[][]} ends @returns {number[]} */
function components(nodes, ends) {
  const parent = Array.from({ length: nodes }, (_, index) => index);
  const root = (/** @type {number} */ node) => {
    while (parent[node] !== node) node = parent[node] = parent[parent[node]];
    return node;
  };
  for (const [a, b] of ends) parent[root(a)] = root(b);
  return parent.map((_, index) => root(index));
}

/** @param {number[]} values */
function mostCommon(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0];
}
