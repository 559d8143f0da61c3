"""One block of a satellite's link: the detections of a pass, and real distillation at both ends.

The satellite is Alice, the ground station Bob. What differs from a block of fibre is the light, which changes
every second, and that the length of a block is what the passes give: the proof is applied once to all that
was detected in them, with the mission's own epsilons. The post-processing may take place at the end of the
pass or at any later radio contact; nothing of it changes.

>>> from openqci.core.identifiers import LinkId
>>> from openqci.links.ground import ground_station
>>> from openqci.links.missions import mission
>>> from openqci.links.survey import SatelliteTask, seen_of_satellite
>>> from openqci.space import utc_seconds
>>> design, ground = mission("eagle-1").design(), ground_station("ogs-oberpfaffenhofen")
>>> start = utc_seconds("2027-03-20")
>>> task = SatelliteTask(design, design.orbits(start)[0], (ground,), start, start + 86_400.0, 1.0, None, None)
>>> _, seen = seen_of_satellite(task)
>>> name = BlockName(LinkId("eagle-1--ogs-oberpfaffenhofen"), 0)
>>> PassOrder(name, design, ground, seen.one(1), 1, b"", b"")
PassOrder(eagle-1--ogs-oberpfaffenhofen, 0, 245 s)
"""

from dataclasses import dataclass, field

import numpy as np

from openqci.core.errors import ConfigurationError
from openqci.distillation import BlockName, DistillationSettings
from openqci.distillation.reconciliation import reconciliation_for
from openqci.links.budget import SpaceLink
from openqci.links.ground import GroundStation
from openqci.links.missions import Design
from openqci.links.pass_detections import pass_exchange
from openqci.links.pass_keys import credited
from openqci.space.pass_samples import PassSamples
from openqci.twin.block import (
    QBER_MAX,
    QBER_USUAL,
    BlockOutcome,
    distil_exchange,
    outcome_of_ends,
    photon_generator,
)

RADIO_ROUND_TRIP_S = 0.05
"""From the station to a satellite in low orbit and back: light takes up to 14 ms from the horizon at 1000 km,
the rest is assumed for the radio's framing. Cascade would wait for 400 of them."""


@dataclass(frozen=True, repr=False)
class PassOrder:
    """What a worker needs to make one block of a satellite's link.

    ``seen`` are the samples of the pass, or of all passes that make the block, from when they are tracked.
    Seeds and authentication keys are as those of :class:`openqci.twin.block.BlockOrder`.
    """

    name: BlockName
    design: Design
    ground: GroundStation
    seen: PassSamples
    photon_seed: int
    authentication_key_a: bytes = field(repr=False)
    authentication_key_b: bytes = field(repr=False)

    def __repr__(self) -> str:
        tracked_s = float(self.seen.weights_s[credited(self.seen, self.design.operation)].sum())
        return f"PassOrder({self.name.link_id}, {self.name.number}, {tracked_s:.0f} s)"


def distil_pass(order: PassOrder) -> BlockOutcome:
    """Simulate the detections of a pass and let both ends distil them."""
    settings = pass_settings(order.design)
    link = SpaceLink(order.design, order.ground)
    photons = pass_exchange(link, order.seen, photon_generator(order.photon_seed))
    detections = int(np.size(photons.detections.slots))
    ends = distil_exchange(
        photons, settings, order.name, order.authentication_key_a, order.authentication_key_b
    )
    return outcome_of_ends(order.name, detections, photons.duration_s, settings.proof_id, *ends)


def pass_settings(design: Design) -> DistillationSettings:
    """Return what a satellite and its stations have agreed on before the pass.

    Raises
    ------
    ConfigurationError
        For a design whose key the distillation cannot make: entangled pairs, and key from both bases.
    """
    payload, operation = design.payload, design.operation
    if design.entangled:
        raise ConfigurationError(
            f"{design.name}: entangled pairs are not distilled; expected decoy-state BB84"
        )
    if operation.key_bases != "z":
        raise ConfigurationError(
            f"{design.name}: its key comes from both bases; expected an operation with key_bases z, "
            "as the distillation discloses the other basis for its test"
        )
    return DistillationSettings(
        proof_id=operation.proof,
        intensities=payload.intensities,
        intensity_probabilities=payload.probabilities,
        epsilon_sec=operation.epsilon_sec,
        epsilon_cor=operation.epsilon_cor,
        qber_max=QBER_MAX,
        reconciliation=reconciliation_for(RADIO_ROUND_TRIP_S, QBER_USUAL),
    )
