"""Relays between real KME processes: a chain of nodes over loopback and mutual TLS.

Modules distil while it runs; applications at both ends take keys and compare them. Printed are the time from
a batch's order to its target's word at the origin, and the keys per second that both ends had.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from tests.kme.chain import Chain
from tests.kme.make import keys_in_time, running, sae

FIRST_BLOCKS_S = 300.0


def measured(hops: int, seconds: float) -> dict[str, float]:
    """Run a chain for a while; return what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        chain = Chain(Path(folder), hops + 1, target=hops)
        chain.sign(2, low_keys=2_000, high_keys=4_000, hybrid="quantum")
        with running(*chain.modules, *chain.kmes):
            return exchanged(chain, hops, seconds)


def exchanged(chain: Chain, hops: int, seconds: float) -> dict[str, float]:
    """Take keys at both ends, compare them, read how long relays took."""
    slave_id, keys = f"app-{hops}", 0
    with (
        sae(chain.folder, chain.credentials(0), chain.sae_port(0)) as master,
        sae(chain.folder, chain.credentials(hops), chain.sae_port(hops)) as slave,
    ):
        keys_in_time(master, slave_id, 100, FIRST_BLOCKS_S)
        began_s = time.monotonic()
        while time.monotonic() - began_s < seconds:
            ours = keys_in_time(master, slave_id, 100)
            theirs = slave.dec_keys("app-0", ours.key_ids)
            assert ours.keys == theirs.keys, (ours.message, theirs.message)
            keys += len(ours.keys)
        took_s = time.monotonic() - began_s
    relays = chain.status(0)["relays"]
    times_ms = sorted(1e3 * each["took_s"] for each in relays["recent"])
    return {
        "hops": hops,
        "relays": relays["ready"],
        "relay_p50_ms": round(statistics.median(times_ms), 2),
        "relay_p90_ms": round(times_ms[int(0.9 * (len(times_ms) - 1))], 2),
        "keys_per_s_at_both_ends": round(keys / took_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hops", type=int, nargs="+", default=[2])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true", help="one document")
    args = parser.parse_args()
    rows = [measured(hops, args.seconds) for hops in args.hops]
    if args.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
