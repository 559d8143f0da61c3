"""Service classes: what an application asks for, and how far it can do with less.

Two kinds. An application that *changes keys* (AES under IPsec, MACsec, TLS) can change them more seldom, up
to a longest interval: its class may be stretched. A *one-time pad* (voice, text, commands) spends as much
key as it says; with less key it says less, down to a part below which it is of no use. Priority 1 is served
first; 0 is kept for emergencies.

The classes of the catalogue are data with a source (``openqci.network.catalogue``, ``demand.yaml``):

>>> voice = service_classes()["gov-otp-voice"]
>>> voice.level, round(voice.wanted_bps, 1), round(voice.least_bps, 1), voice.rekey_s_at(voice.least_bps)
(1, 222.2, 22.2, None)
>>> tunnel = service_classes()["gov-ipsec-restricted"]
>>> round(tunnel.wanted_bps, 2), tunnel.stretch_max, tunnel.rekey_s_at(tunnel.wanted_bps / 3)
(8.53, 10.0, 180.0)
"""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import msgspec

from openqci.core.errors import ConfigurationError
from openqci.network.catalogue import UseCase, catalogue_demand

KEY_BITS = 256
"""Every class that changes keys changes AES-256 keys."""

EMERGENCY = 0
"""Level of a flow in an emergency, whatever its class."""

LEVEL_MAX = 9

PLAIN = "plain"


class ServiceClass(msgspec.Struct, frozen=True):
    """One class. ``rekey_s`` is None for a one-time pad; ``least_fraction`` is the part still of use."""

    class_id: str
    application: str
    level: int
    wanted_bps: float
    least_fraction: float
    rekey_s: float | None = None
    source: str = ""

    @property
    def least_bps(self) -> float:
        """The rate below which the class is of no use."""
        return self.wanted_bps * self.least_fraction

    @property
    def stretch_max(self) -> float:
        """By what factor its key may come slower."""
        return 1 / self.least_fraction

    @property
    def one_time_pad(self) -> bool:
        """Whether its key is spent bit by bit."""
        return self.rekey_s is None

    def rekey_s_at(self, granted_bps: float) -> float | None:
        """Return the interval at which keys change under a rate; None for a one-time pad."""
        return None if self.rekey_s is None else self.rekey_s * self.wanted_bps / granted_bps


def plain_class(wanted_bps: float) -> ServiceClass:
    """Return the class of a flow that names none: of the last level, stretched as far as need be.

    >>> plain_class(25.6).level, plain_class(25.6).stretch_max
    (9, 100.0)
    """
    return ServiceClass(PLAIN, "without a class", LEVEL_MAX, wanted_bps, 0.01, KEY_BITS / wanted_bps)


def class_of(use_case: UseCase) -> ServiceClass:
    """Return the service class of a use case; ConfigurationError if its figures contradict each other."""
    if use_case.rekey_s is not None and use_case.keys_per_rekey is not None:
        wanted_bps = KEY_BITS * use_case.keys_per_rekey / use_case.rekey_s
        fraction = use_case.rekey_s / (use_case.rekey_s_max or use_case.rekey_s)
    elif use_case.otp_bps is not None:
        wanted_bps = use_case.otp_bps * (1.0 if use_case.duty is None else use_case.duty)
        fraction = 1.0 if use_case.least_fraction is None else use_case.least_fraction
    else:
        raise ConfigurationError(f"use case {use_case.id}: expected rekey_s with keys_per_rekey, or otp_bps")
    for holds, fault in (
        (wanted_bps > 0, f"asks for {wanted_bps:g} bit/s; expected more than none"),
        (0 < fraction <= 1, f"is of use down to the part {fraction:g}; expected above 0, at most 1"),
        (
            1 <= use_case.level <= LEVEL_MAX,
            f"level {use_case.level}; expected 1 to {LEVEL_MAX}",
        ),
        (
            abs(wanted_bps - use_case.bits_per_s) <= 0.01 * wanted_bps,
            f"bits_per_s {use_case.bits_per_s:g} is not what its other figures give, {wanted_bps:.3f}",
        ),
    ):
        if not holds:
            raise ConfigurationError(f"use case {use_case.id}: {fault}")
    return ServiceClass(
        class_id=use_case.id,
        application=use_case.application,
        level=use_case.level,
        wanted_bps=wanted_bps,
        least_fraction=fraction,
        rekey_s=use_case.rekey_s,
        source=use_case.stretch_source,
    )


@cache
def service_classes() -> Mapping[str, ServiceClass]:
    """Return the classes of the catalogue by their ID."""
    return MappingProxyType({each.id: class_of(each) for each in catalogue_demand().use_cases})
