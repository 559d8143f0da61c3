"""The smallest true problems for tests: a few contacts of a few satellites."""

import numpy as np

from openqci.planning.contacts import Contacts, RadioContacts
from openqci.planning.limits import Limits


def contacts(seed: int, number: int, satellites: int = 2, stations: int = 3, **options) -> Contacts:
    """Return contacts at random within some hours, so crowded that limits bind."""
    rng = np.random.default_rng(seed)
    start = np.sort(rng.uniform(0, 6000, number))
    return Contacts.of(
        satellite=rng.integers(0, satellites, number),
        station=rng.integers(0, stations, number),
        start_utc_s=start,
        stop_utc_s=start + rng.uniform(100, 400, number),
        key_bits=rng.uniform(1e5, 1e6, number),
        clear_chance=rng.uniform(0.1, 0.9, number),
        stored_bits=rng.uniform(1e6, 1e7, number),
        states=["IE", "CY", "GR", "FI"][:stations],
        **options,
    )


def radio(seed: int, number: int, satellites: int = 2) -> RadioContacts:
    rng = np.random.default_rng(seed)
    start = np.sort(rng.uniform(0, 6000, number))
    return RadioContacts(rng.integers(0, satellites, number), start, start + 60.0)


LIMITS = Limits(slew_s=60.0, turn_s=30.0, link_s_per_day=900.0, store_bits=1.5e7, radio_bps=1e5)
