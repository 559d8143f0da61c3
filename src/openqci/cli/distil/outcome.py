"""What ``openqci distil`` says of its blocks: one line each, totals, or one JSON document."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from openqci import __version__
from openqci.distillation import BlockReport, DistillationSettings

FORMAT = "openqci-distillation-1"


@dataclass(frozen=True)
class BlockOutcome:
    """One block as one end saw it.

    ``begin_s`` and ``end_s`` are the times of its first and last detection since the start of the recording;
    ``seconds`` what each stage took of this end's processor.
    """

    report: BlockReport
    aborted: str
    begin_s: float
    end_s: float
    seconds: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        return {
            **msgspec.structs.asdict(self.report),
            "epsilon": self.report.epsilon,
            "aborted": self.aborted,
            "begin_s": self.begin_s,
            "end_s": self.end_s,
            "seconds": dict(self.seconds),
        }


def totals(outcomes: Sequence[BlockOutcome]) -> dict[str, Any]:
    """Return sums over blocks; epsilons add up."""
    reports = [each.report for each in outcomes]
    kept = [report for report in reports if report.secret_bits]
    sifted, secret = (sum(getattr(each, name) for each in reports) for name in ("sifted_bits", "secret_bits"))
    wrong = sum(sum(each.z_errors) for each in kept)
    recorded_s = max((each.end_s for each in outcomes), default=0.0)
    busy_s = sum(sum(each.seconds.values()) for each in outcomes)
    return {
        "blocks": len(reports),
        "blocks_with_key": len(kept),
        "detections": sum(each.detections for each in reports),
        "double_clicks": sum(each.double_clicks for each in reports),
        "sifted_bits": sifted,
        "disclosed_bits": sum(each.disclosed_bits for each in reports),
        "secret_bits": secret,
        "qber": wrong / max(1, sum(each.sifted_bits for each in kept)),
        "epsilon": sum(each.epsilon for each in kept),
        "authentication_bytes": sum(each.authentication_bytes_used for each in reports),
        "recorded_s": recorded_s,
        "secret_bits_per_s": secret / recorded_s if recorded_s else 0.0,
        "busy_s": busy_s,
        "sifted_bits_per_busy_s": sifted / busy_s if busy_s else 0.0,
    }


def document(
    settings: DistillationSettings | None, outcomes: Sequence[BlockOutcome], **more: Any
) -> dict[str, Any]:
    """Return the whole report; never key."""
    return {
        "format": FORMAT,
        "made_by": f"openqci {__version__}",
        "settings": None if settings is None else msgspec.structs.asdict(settings),
        **more,
        "blocks": [each.as_json() for each in outcomes],
        "totals": totals(outcomes),
    }


def tell(as_json: bool, told: Mapping[str, Any], outcomes: Sequence[BlockOutcome]) -> None:
    """Print the report."""
    if as_json:
        print(json.dumps(told, indent=2))
        return
    for each in outcomes:
        report = each.report
        print(f"block {report.number}: {report.detections} detections, {report.sifted_bits} sifted, ", end="")
        if each.aborted:
            print(f"no key: {each.aborted}")
        else:
            print(
                f"QBER {report.qber:.2%}, {report.disclosed_bits} disclosed: {report.secret_bits} secret bits"
            )
    sums = told["totals"]
    print(
        f"{sums['blocks_with_key']} of {sums['blocks']} blocks with key: {sums['secret_bits']} secret bits, "
        f"epsilon {sums['epsilon']:.2g}; {sums['secret_bits_per_s']:.4g} bit/s of the recording"
    )
    print(f"{sums['busy_s']:.3g} s of one core: {sums['sifted_bits_per_busy_s'] / 1e6:.3g} Mbit/s sifted")
