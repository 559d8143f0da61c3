"""The published test vectors: two ends that are fed them say every byte of them, with and without kernels."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from openqci.core.detections import DetectionRecord, EmissionRecord
from openqci.core.identifiers import LinkId
from openqci.core.keys import SecretBytes
from openqci.distillation import (
    AliceDistillation,
    BlockName,
    BobDistillation,
    Direction,
    DistillationSettings,
    KeyDistilled,
    converse,
)
from openqci.distillation.reconciliation.cascade import Cascade
from tools.make_distillation_vectors import vectors

FILE = Path(__file__).parents[2] / "docs" / "reference" / "distillation-v1.json"
GIVEN = json.loads(FILE.read_text())


def binary(text: str) -> bytes:
    return base64.b64decode(text)


def bits(text: str) -> np.ndarray:
    return np.unpackbits(np.frombuffer(binary(text), np.uint8), count=GIVEN["detections"])


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "portable"])
def test_both_ends_say_what_is_published(compiled: bool) -> None:
    gaps = np.frombuffer(binary(GIVEN["slot_gaps"]), np.uint8).astype(np.int64) + 1
    slots = np.cumsum(gaps)
    alice, bob = GIVEN["alice"], GIVEN["bob"]
    emissions = EmissionRecord(
        slots, bits(alice["bases"]), bits(alice["bits"]), bits(alice["intensities"]), int(slots[-1]) + 1
    )
    detections = DetectionRecord(slots, bits(bob["bases"]), bits(bob["bits"]), 0)
    settings = DistillationSettings(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in GIVEN["settings"].items()
        }
    )
    block = BlockName(LinkId(GIVEN["link_id"]), GIVEN["block"])
    drawn = {end: iter([binary(each) for each in GIVEN[end]["entropy"]]) for end in ("alice", "bob")}
    said = []

    def line(direction: Direction, message: bytes) -> tuple[bytes]:
        said.append((direction.value.split("-")[0], message))
        return (message,)

    def key() -> SecretBytes:
        return SecretBytes(binary(GIVEN["authentication_key"]))

    method = Cascade(compiled=compiled)
    ends = converse(
        AliceDistillation(
            emissions, settings, block, key(), lambda _: next(drawn["alice"]), reconciliation=method
        ),
        BobDistillation(
            detections, settings, block, key(), lambda _: next(drawn["bob"]), reconciliation=method
        ),
        line=line,
    )
    assert said == [(each["from"], binary(each["datagram"])) for each in GIVEN["messages"]]
    for end in ends:
        assert isinstance(end, KeyDistilled)
        assert end.key.key.reveal() == binary(GIVEN["key"])
        assert {name: getattr(end.report, name) for name in GIVEN["report"]} == GIVEN["report"]


def test_the_tool_makes_the_published_file() -> None:
    assert json.loads(json.dumps(vectors())) == GIVEN
