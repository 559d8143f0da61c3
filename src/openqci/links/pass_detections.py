"""Detections of a pass: the channel of every second, and the Monte Carlo over all of them.

The same light as :func:`openqci.links.pass_keys.pass_yields` counts in closed form, sample by sample and node
by node of the fading; :func:`openqci.links.pass_keys.pass_yields` is what :func:`pass_exchange` gives on
average. Only detections are drawn, never pulses, so a pass of 3e11 pulses costs what its detections cost.

>>> from openqci.links.ground import ground_station
>>> from openqci.links.missions import mission
>>> from openqci.links.survey import SatelliteTask, seen_of_satellite
>>> from openqci.space import utc_seconds
>>> design, ground = mission("eagle-1").design(), ground_station("ogs-oberpfaffenhofen")
>>> start = utc_seconds("2027-03-20")
>>> task = SatelliteTask(design, design.orbits(start)[0], (ground,), start, start + 86_400.0, 1.0, None, None)
>>> _, seen = seen_of_satellite(task)
>>> stretches = pass_stretches(SpaceLink(design, ground), seen.one(1))
>>> len(stretches), round(sum(each.pulses for each in stretches) / 1e9)
(492, 245)

Left out: what :mod:`openqci.links.pass_keys` leaves out; clouds; loss of track; the clocks of the two ends.
"""

import numpy as np

from openqci.core.errors import OutsideModel
from openqci.links.budget import SpaceLink
from openqci.links.pass_keys import FADING_NODES, credited, detected
from openqci.quantum import DecoySource, Exchange, FibreChannel, QuantumLink, Receiver
from openqci.quantum.varying import Stretch, exchange_of_stretches
from openqci.space.fading import Fading, pointing_fading
from openqci.space.pass_samples import PassSamples

SAMPLE_STEP_S = 1.0
"""Between samples of a pass whose detections are drawn: the loss then changes by 0.1 dB at most."""


def pass_exchange(link: SpaceLink, seen: PassSamples, rng: np.random.Generator) -> Exchange:
    """Return both ends' records of the pass, or passes, of one block.

    Parameters
    ----------
    link : SpaceLink
        Of a design with a decoy-state source.
    seen : PassSamples
        From when the satellite is tracked, in steps of about :data:`SAMPLE_STEP_S`.
    rng : numpy.random.Generator
        SFC64 or PCG64DXSM. Equal states give equal records, byte for byte.

    Returns
    -------
    Exchange
        Without detections if no moment may be credited. Slots count credited time only: where the Moon stands
        in the way, say, and between two passes, there are none.

    Raises
    ------
    OutsideModel
        For entangled pairs, or a background too bright for the detectors.
    """
    return exchange_of_stretches(pass_stretches(link, seen), rng)


def pass_stretches(link: SpaceLink, seen: PassSamples) -> list[Stretch]:
    """Return the link in every credited step of time, one for each node of its fading."""
    if link.design.entangled:
        raise OutsideModel("protocol", link.design.payload.protocol, "decoy-state BB84, one link at a time")
    chosen = np.flatnonzero(credited(seen, link.design.operation) & (seen.weights_s > 0))
    through, background_hz = link.light(seen, chosen)
    detected(link, through, background_hz)  # refuses a background beyond the model
    source, receiver = link.design.payload.source(), link.design.station.receiver(link.design.payload)
    fading = pointing_fading(link.jitter_exponent, FADING_NODES)
    # What ``light`` returns is past the receiver, which the quantum link has as an element of its own.
    received = float(receiver(np.ones(1))[0])
    return [
        stretch
        for arriving, background, weight_s in zip(
            through / received, background_hz, seen.weights_s[chosen], strict=True
        )
        for stretch in faded(source, receiver, float(arriving), float(background), float(weight_s), fading)
    ]


def faded(
    source: DecoySource,
    receiver: Receiver,
    transmittance: float,
    background_photons_hz: float,
    duration_s: float,
    fading: Fading,
) -> list[Stretch]:
    """Return a step of time cut into one stretch for each node of the fading, whose mean is in already."""
    relative = fading.transmittances / fading.mean
    losses_db = np.maximum(0.0, -10 * np.log10(np.minimum(transmittance * relative, 1.0)))
    return [
        Stretch(
            QuantumLink(source, FibreChannel(float(loss_db), background_photons_hz), receiver),
            round(duration_s * float(weight) * source.clock_rate_hz),
        )
        for loss_db, weight in zip(losses_db, fading.weights, strict=True)
    ]
