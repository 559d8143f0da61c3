/**
 * The shapes that the console's interface sends; see `dashboard/api.py`. Types only, no code.
 *
 * @typedef {{site_id: string, name: string, kind: string, domain: string, country: string, lat: number,
 *   lon: number, kme_id: string, url: string, degree: number, generated: boolean}} NetworkNode
 * @typedef {{link_id: string, a: string, b: string, length_km: number, loss_db: number, type: string}} NetworkHop
 * @typedef {{satellite: string, lat: number, lon: number, in_contact: boolean, serving: string | null,
 *   track: [number, number][]}} Satellite
 * @typedef {{name: string, title: string, simulated: boolean, nodes: NetworkNode[], hops: NetworkHop[],
 *   domains: {domain: string, nodes: number, hops: number}[]}} Network
 * @typedef {{batch_tag: string, master_sae: string, slave_sae: string, sites: string[], links: string[],
 *   at_s: number, hops: number}} Route
 * @typedef {{secret_bits_total: number, stock_bits: number, distilled_bps: number, possible_bps: number,
 *   consumed_bps: number, keys_delivered: number, relays: number, hops_with_key: number,
 *   hops_distilling: number, hops: number}} Totals
 * @typedef {{stock_bits: number[], state: number[], distilled_bps: number[], stock_high_bits: number}} HopArrays
 * @typedef {{code: string, severity: string, link_id: string, reason: string, since_s: number}} Alarm
 * @typedef {{fault_id: string, kind: string, target: string, words: string, links: string[], sites: string[],
 *   since_s: number, until_s: number | null}} InjectedFault
 * @typedef {{number: number, at: string, at_s: number, kind: string, tone: string, text: string,
 *   links: string[], sites: string[], route: string[]}} NetworkEvent
 * @typedef {{time_s: number, phase: string, ready_fraction: number, totals: Totals, hops: HopArrays,
 *   last_route: Route | null, routes: Route[], satellites?: Satellite[], alarms?: Alarm[], faults?: InjectedFault[],
 *   events?: NetworkEvent[]}} Live
 *
 * The map's own words:
 * @typedef {{k: number, x: number, y: number}} View   screen = k * unit + (x, y)
 * @typedef {{x0: number, y0: number, x1: number, y1: number}} Box
 * @typedef {{kind: "node" | "hop", id: string}} Thing
 * @typedef {import("./model.js").Model} Model
 */
export {};
