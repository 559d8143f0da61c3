"""What a link can do: a device on a hop, as a quantum link to simulate and as a forecast of its key rate.

Three doors. For the network: :func:`quantum_link` turns what the network says (a device, a hop with its loss)
into the elements of :mod:`openqci.quantum`, and :func:`forecast` says in closed form what they yield. For
planners and physicists: :func:`link_rate` judges any protocol on any device profile under a named proof, and
:func:`link_detections` draws its detections. Both are for planning; no key ever comes from them.

>>> found = link_rate(LinkCase(profile("dv-metro"), loss_db=10.0))
>>> found.profile, found.proof, found.secret_length_bits > 30_000
('dv-metro', 'rusca-2018', True)

By name, as they take longer to load: :mod:`openqci.links.attacks` (what an attack does to a link) and
:mod:`openqci.links.experiments` (the models against published experiments). Read
:mod:`openqci.links.protocols` next.
"""

from openqci.links.forecast import LinkForecast, expected_counts, forecast, quantum_link
from openqci.links.optimise import DecoySettings, KeyBlock, optimise_decoy
from openqci.links.passes import Downlink, PassChannel, PassCounts, PassKey, pass_counts, pass_key
from openqci.links.ports import DeviceProfile, HopProfile
from openqci.links.profiles import Profile, profile, profile_ids, profile_schema, read_profiles
from openqci.links.protocols import LinkCase, LinkRate, protocol, protocol_ids
from openqci.links.rate import decoy_link, link_detections, link_rate, sweep

__all__ = [
    "DecoySettings",
    "DeviceProfile",
    "Downlink",
    "HopProfile",
    "KeyBlock",
    "LinkCase",
    "LinkForecast",
    "LinkRate",
    "PassChannel",
    "PassCounts",
    "PassKey",
    "Profile",
    "decoy_link",
    "expected_counts",
    "forecast",
    "link_detections",
    "link_rate",
    "optimise_decoy",
    "pass_counts",
    "pass_key",
    "profile",
    "profile_ids",
    "profile_schema",
    "protocol",
    "protocol_ids",
    "quantum_link",
    "read_profiles",
    "sweep",
]
