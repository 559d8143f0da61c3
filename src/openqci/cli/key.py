"""``openqci key``: a real ETSI GS QKD 014 exchange at both ends of a pair, compared bit by bit."""

import argparse
import base64
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from openqci.cli.sae import enrolled_saes, kme_at
from openqci.core.errors import ConfigurationError, KeyUnavailable, OpenQCIError, RequestRefused
from openqci.core.identifiers import is_border
from openqci.crypto import equal
from openqci.delivery.directory import SaeRecord
from openqci.delivery.etsi014_model import MANDATORY_NOT_MET, MIN_PATHS_EXTENSION, REQUIRE_EXTENSION
from openqci.services.data_directory import DataDirectory
from openqci.services.sae_client import Answer, SAEClient

TIMEOUT_S = 180.0
REQUIRED = {"quantum": ["no_computational"], "both": ["hybrid", "no_computational"], "either": []}
"""What each policy demands of a key, as ``openqci_require`` of ETSI GS QKD 014 has it."""

RETRY_S = 1.0
"""Pause before the next try where a KME gives none."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci key``."""
    parser = subparsers.add_parser("key", help="fetch one key at both ends through ETSI GS QKD 014")
    parser.add_argument("--data-dir", type=Path, required=True, help="the network's data directory")
    parser.add_argument("--from", required=True, dest="master", help="SAE ID of the master")
    parser.add_argument("--to", required=True, dest="slave", help="SAE ID of the slave")
    parser.add_argument("--number", type=int, default=1, help="how many keys (default 1)")
    parser.add_argument("--size", type=int, help="size of each key in bits (default: the KME's, 256)")
    parser.add_argument(
        "--paths", type=int, default=1, metavar="K", help="share each key over K disjoint ways (default 1)"
    )
    parser.add_argument(
        "--policy",
        choices=sorted(REQUIRED),
        default="either",
        help="what the keys shall rest on: one-time pads on every hop (quantum), ML-KEM beside them (both), "
        "or what there is (either, the default)",
    )
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="seconds to wait for key (180)")
    parser.add_argument(
        "--wait", action="store_true", help="wait as long as it takes, for the pass of a satellite, say"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--show-key", action="store_true", help="print the keys too, in base64")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Exchange:
    """What both ends answered, and how long it took."""

    at_master: Answer
    at_slave: Answer
    enc_ms: float
    dec_ms: float
    waited_s: float

    @property
    def equal(self) -> bool:
        """Whether both ends got the same IDs with the same bytes."""
        pairs = zip(self.at_master.keys, self.at_slave.keys, strict=False)
        return self.at_master.key_ids == self.at_slave.key_ids and all(equal(a, b) for a, b in pairs)


def run(args: argparse.Namespace) -> int:
    """Fetch keys at both ends and compare them; 1 if they differ or none came in time."""
    directory = DataDirectory.open_existing(args.data_dir)
    saes = {record.sae_id: record for record in enrolled_saes(directory)}
    with (
        client_of(directory, saes, args.master) as master,
        client_of(directory, saes, args.slave) as slave,
    ):
        try:
            exchange = exchange_keys(master, slave, args)
        except (OSError, HTTPException) as error:
            raise OpenQCIError(
                f"a KME cannot be reached ({error}); is the network running? "
                f"`openqci up --scenario {directory.scenario} --data-dir {directory.path}`"
            ) from None
    report = report_of(exchange, args)
    print(json.dumps(report, indent=2) if args.json else as_text(report))
    return 0 if exchange.equal else 1


def client_of(directory: DataDirectory, saes: dict[Any, SaeRecord], sae_id: str) -> SAEClient:
    """Return a client with an application's own credentials at its own KME."""
    record = saes.get(sae_id)
    if record is None:
        raise ConfigurationError(
            f"SAE {sae_id!r} is not enrolled; `openqci sae enrol` does it, `openqci sae list` shows who is"
        )
    folder = Path(record.credentials_dir)
    paths = (folder / name for name in ("cert.pem", "key.pem", "ca.pem"))
    return SAEClient(kme_at(directory, record.site_id)["url"], *paths, kme_id=record.kme_id)


def exchange_keys(master: SAEClient, slave: SAEClient, args: argparse.Namespace) -> Exchange:
    """Get keys as master, then the same ones as slave."""
    began_s = time.monotonic()
    deadline_s = math.inf if args.wait else began_s + args.timeout
    try:
        at_master, enc_s = ask(
            lambda: master.enc_keys(
                args.slave, args.number, args.size, provenance=True, mandatory=demands_of(args)
            ),
            deadline_s,
        )
    except RequestRefused as refused:
        if refused.status == 400 and MANDATORY_NOT_MET not in refused.message:
            raise ConfigurationError(f"the KME refused the request: {refused.message}") from None
        raise
    waited_s = time.monotonic() - began_s - enc_s
    at_slave, dec_s = ask(lambda: slave.dec_keys(args.master, at_master.key_ids, provenance=True), deadline_s)
    return Exchange(at_master, at_slave, 1e3 * enc_s, 1e3 * dec_s, waited_s)


def demands_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the keys shall be like, as extensions of the request."""
    demands: dict[str, Any] = {}
    if args.paths != 1:
        demands[MIN_PATHS_EXTENSION] = args.paths
    if REQUIRED[args.policy]:
        demands[REQUIRE_EXTENSION] = REQUIRED[args.policy]
    return demands


def ask(request: Callable[[], Answer], deadline_s: float) -> tuple[Answer, float]:
    """Ask until there is key or the time is over; return the answer and how long it took itself.

    Raises RequestRefused if the KME refuses, KeyUnavailable if no key came in time.
    """
    while True:
        began_s = time.monotonic()
        answer = request()
        now_s = time.monotonic()
        if answer.status == 200:
            return answer, now_s - began_s
        # Key as demanded is made now, unless the KME says why it cannot be.
        comes = answer.status == 503 or answer.message == MANDATORY_NOT_MET
        if (reason := hopeless_reason(answer)) is not None:
            raise RequestRefused(answer.status, f"{answer.message}: {reason}")
        if not comes:
            raise RequestRefused(answer.status, answer.message)
        pause_s = RETRY_S if answer.retry_after_s is None else answer.retry_after_s
        if now_s + pause_s >= deadline_s:
            expected = "".join(f", expected {each}" for each in told(answer, "expected"))
            raise KeyUnavailable(f"no key in time: {answer.message}{expected}", **shortage_bytes(answer))
        time.sleep(pause_s)


def hopeless_reason(answer: Answer) -> str | None:
    """Return why no waiting will help, where the KME says so in a 503's details."""
    return next(iter(told(answer, "reason")), None)


def told(answer: Answer, name: str) -> list[str]:
    """Return what the details of a 503 say under a name."""
    said = (part.get(name) for part in answer.body.get("details", []))
    return [str(each) for each in said if each is not None]


def shortage_bytes(answer: Answer) -> dict[str, int]:
    """Read how much was asked for and how much there was from a 503's details."""
    said = {name: value for part in answer.body.get("details", []) for name, value in part.items()}
    return {
        "wanted_bytes": int(said.get("requested_bits", 0)) // 8,
        "available_bytes": int(said.get("available_bits", 0)) // 8,
    }


def report_of(exchange: Exchange, args: argparse.Namespace) -> dict[str, Any]:
    """Return what is printed. Keys of several relays: the first one's route, the weakest figures."""
    made = exchange.at_master.provenance
    report: dict[str, Any] = {
        "from": args.master,
        "to": args.slave,
        "key_ids": exchange.at_master.key_ids,
        "size_bits": 8 * len(exchange.at_master.keys[0]),
        "equal": exchange.equal,
        "route": made[0]["route"] if made else None,
        "hops": made[0]["hops"] if made else None,
        "paths": ways_of(made[0]) if made else None,
        "hybrid": sorted({name for one in made for name in one.get("hybrid", [])}) if made else None,
        "computational": any(one.get("computational", False) for one in made) if made else None,
        "epsilon": max((one["epsilon"] for one in made), default=None),
        "simulated": any(one["simulated"] for one in made) if made else None,
        "timings": {
            "enc_ms": round(exchange.enc_ms, 2),
            "dec_ms": round(exchange.dec_ms, 2),
            "total_ms": round(exchange.enc_ms + exchange.dec_ms + 1e3 * exchange.waited_s, 2),
            "waited_s": round(exchange.waited_s, 3),
        },
    }
    if args.show_key:
        report["keys"] = [base64.b64encode(key).decode() for key in exchange.at_master.keys]
    return report


def ways_of(made: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all ways of a key, also if there was one only."""
    one = {name: made.get(name) for name in ("route", "links", "form", "epsilon")}
    return list(made.get("paths") or [one])


def hops_of(path: dict[str, Any]) -> str:
    """Return how many QKD hops a way has; borders inside a site are none."""
    return str(sum(not is_border(link) for link in path["links"]))


def folded(route: list[str]) -> list[str]:
    """Put the trusted nodes that the span rule has set on long links into a count, for a reader.

    >>> folded(["pt-lisbon", "pt-lisbon--pt-evora.tn1", "pt-evora"])
    ['pt-lisbon', '(1)', 'pt-evora']
    """
    stops: list[str] = []
    for site in route:
        if ".tn" not in site:
            stops.append(site)
        elif stops and stops[-1].startswith("("):
            stops[-1] = f"({int(stops[-1][1:-1]) + 1})"
        else:
            stops.append("(1)")
    return stops


def pass_text(made: dict[str, Any]) -> str:
    """Say from which pass of a satellite link key came.

    >>> pass_text({"satellite": "s", "station": "x", "ended_utc": "2027-03-20T19:06:17Z", "age_s": 5400.0})
    's over x, ended 2027-03-20T19:06:17Z, 1.5 h old when used'
    """
    age = f"{made['age_s'] / 3600:.1f} h old when used"
    return f"{made['satellite']} over {made['station']}, ended {made['ended_utc']}, {age}"


def foundation(report: dict[str, Any]) -> str:
    """Say in words what a key's secrecy rests on."""
    ways = len(report["paths"])
    quantum = "one-time pads on every hop" if not report["computational"] else "pads, and ML-KEM on dry hops"
    shared = f", shared over {ways} disjoint ways" if ways > 1 else ""
    hybrid = f"; beside them {' and '.join(report['hybrid'])} end to end" if report["hybrid"] else ""
    return f"{quantum}{shared}{hybrid}"


def as_text(report: dict[str, Any]) -> str:
    """Return the report for a reader."""
    timings = report["timings"]
    lines = [
        f"{len(report['key_ids'])} key(s) of {report['size_bits']} bits, {report['from']} to {report['to']}: "
        f"{'equal at both ends' if report['equal'] else 'NOT EQUAL'}",
        *(f"  {key_id}" for key_id in report["key_ids"]),
        *(f"  key {key}" for key in report.get("keys", [])),
    ]
    if report["route"]:
        long_links = any(".tn" in site for path in report["paths"] for site in path["route"])
        legend = "; (n) stands for n trusted nodes on one long link" if long_links else ""
        lines += [
            *(f"route     {' > '.join(folded(path['route']))}" for path in report["paths"]),
            *(f"pass      {pass_text(each)}" for path in report["paths"] for each in path.get("passes", [])),
            f"hops      {' and '.join(map(hops_of, report['paths']))}{legend}",
            f"rests on  {foundation(report)}",
            f"epsilon   {report['epsilon']:.3g}",
            f"photons   {'simulated' if report['simulated'] else 'real'}",
        ]
    lines.append(
        f"time      {timings['enc_ms']:.1f} ms at the master, {timings['dec_ms']:.1f} ms at the slave, "
        f"{timings['waited_s']:.1f} s waiting for key"
    )
    return "\n".join(lines)
