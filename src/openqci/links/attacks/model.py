"""What an assessed attack leaves: the observables, the key that would be believed, the key that is safe.

These types are shared by attacks on discrete-variable and on continuous-variable links. They say what one
attack does to one link under one proof; they are no statement about attacks that nobody modelled.
Read next :mod:`openqci.links.attacks.assessment`, where they are filled.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TypeVar

import msgspec

from openqci.core.errors import ConfigurationError

BB84, GG02 = "bb84", "gg02"
"""Families of protocols that attacks are modelled on: the word that the ids of their protocols begin with."""

KEY_ZERO, DETECTED, UNDETECTED_INSECURE, HARMLESS = "key-zero", "detected", "undetected-insecure", "harmless"


A = TypeVar("A")


class Observable(msgspec.Struct, frozen=True):
    """One figure that the honest parties log, without and with the attack.

    Attributes
    ----------
    name, unit : str
        Unit "1" for pure numbers.
    honest, attacked : float
        Expected value on the link as commissioned, and under the attack.
    threshold : float
        Where the alarm starts; for a two-sided test the limit on the side to which the attack moves it.
    trips : bool
        Whether the attacked value raises the alarm.
    """

    name: str
    unit: str
    honest: float
    attacked: float
    threshold: float
    trips: bool


class AttackOutcome(msgspec.Struct, frozen=True):
    """What an attack does to a link.

    Attributes
    ----------
    attack, reference : str
        Its id, and where it was published.
    parameters : dict of str to float
    observables : tuple of Observable
        All that the honest parties watch, not only what this attack moves.
    key_believed_per_pulse : float
        Secret bits per emitted pulse that the proof would still give from what is seen.
    key_safe_per_pulse : float
        What is truly secret, or an upper bound to it.
    false_alarm_probability : float
        Upper bound, per block, on an alarm of any of the observables without an attack.
    verdict : str
        "key-zero" (the proof itself gives no key), "detected" (a monitor trips), "undetected-insecure" (key
        would be believed though it is not safe), "harmless" (the key is still safe: this attack by itself
        leaves at least as much secret as is believed).
    countermeasure : str
    """

    attack: str
    reference: str
    parameters: dict[str, float]
    observables: tuple[Observable, ...]
    key_believed_per_pulse: float
    key_safe_per_pulse: float
    false_alarm_probability: float
    verdict: str
    countermeasure: str


def check_link(attack_id: str, family: str, link: object, expected: type) -> None:
    """Raise ConfigurationError unless a link is of the kind that an attack is modelled on."""
    if not isinstance(link, expected):
        raise ConfigurationError(
            f"attack {attack_id!r} is on links of {family}: expected a {expected.__name__}, "
            f"not a {type(link).__name__}"
        )


def made(known: Mapping[str, type[A]], attack_id: str, parameters: Mapping[str, float]) -> A:
    """Return the attack of an id from a table of them; ConfigurationError names those that there are."""
    if attack_id not in known:
        raise ConfigurationError(f"unknown attack {attack_id!r}; expected one of {', '.join(known)}")
    kind = known[attack_id]
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]  # every attack is a dataclass
    for name in parameters:
        if name not in names:
            raise ConfigurationError(
                f"attack {attack_id!r} has no parameter {name!r}; expected one of {', '.join(names)}"
            )
    return kind(**parameters)


def verdict(key_believed: float, key_safe: float, observables: Iterable[Observable]) -> str:
    """Return the verdict on an attack; a proof that gives no key needs no monitor.

    >>> verdict(0.1, 0.0, ())
    'undetected-insecure'
    """
    if key_believed <= 0:
        return KEY_ZERO
    if any(each.trips for each in observables):
        return DETECTED
    return UNDETECTED_INSECURE if key_believed > key_safe else HARMLESS
