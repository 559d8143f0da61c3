"""Which protocols there are, by the id that profiles and results carry."""

from openqci.core.errors import ConfigurationError
from openqci.links.protocols.case import LinkProtocol
from openqci.links.protocols.decoy_bb84 import BB84_ASYMPTOTIC, DecoyBB84
from openqci.links.protocols.entangled import ContinuousPairs, PulsedPairs
from openqci.links.protocols.gaussian import GaussianModulation
from openqci.links.protocols.stations import BellResults, TwinField
from openqci.proofs.mdi import MDI_ASYMPTOTIC
from openqci.proofs.twin_field import SNS_ASYMPTOTIC

BBM92_PROOFS = ("bbm92-finite", "bbm92-asymptotic")
BBM92_NAMES = {"finite": "bbm92-finite", "asymptotic": "bbm92-asymptotic"}

GG02_PROOFS = ("gg02-composable", "gg02-leverrier-2010", "gg02-asymptotic")
GG02_NAMES = {
    "composable": "gg02-composable",
    "leverrier2010": "gg02-leverrier-2010",
    "asymptotic": "gg02-asymptotic",
}

_PROTOCOLS: dict[str, LinkProtocol] = {
    each.protocol_id: each
    for each in (
        DecoyBB84(
            "bb84-decoy1",
            decoys=1,
            proof_ids=(
                "rusca-2018",
                "rusca-2018-chernoff",
                "wiesemann-2024",
                "wiesemann-2024-azuma",
                BB84_ASYMPTOTIC,
            ),
            short_names={
                "rusca2018": "rusca-2018",
                "chernoff": "rusca-2018-chernoff",
                "wiesemann2024": "wiesemann-2024",
                "azuma": "wiesemann-2024-azuma",
                "asymptotic": BB84_ASYMPTOTIC,
            },
        ),
        DecoyBB84(
            "bb84-decoy2",
            decoys=2,
            proof_ids=("lim-2014", "lim-2014-chernoff", "lim-2014-chernoff-capped", BB84_ASYMPTOTIC),
            short_names={
                "lim2014": "lim-2014",
                "chernoff": "lim-2014-chernoff",
                "capped": "lim-2014-chernoff-capped",
                "asymptotic": BB84_ASYMPTOTIC,
            },
        ),
        PulsedPairs(BBM92_PROOFS, BBM92_NAMES),
        ContinuousPairs(BBM92_PROOFS, BBM92_NAMES),
        BellResults((MDI_ASYMPTOTIC,), {"asymptotic": MDI_ASYMPTOTIC}),
        TwinField((SNS_ASYMPTOTIC,), {"asymptotic": SNS_ASYMPTOTIC}),
        GaussianModulation("gg02-homodyne", "homodyne", GG02_PROOFS, GG02_NAMES),
        GaussianModulation("gg02-heterodyne", "heterodyne", GG02_PROOFS, GG02_NAMES),
    )
}


def protocol(protocol_id: str) -> LinkProtocol:
    """Return the protocol of this id; ConfigurationError names those that there are."""
    if protocol_id not in _PROTOCOLS:
        raise ConfigurationError(f"unknown protocol {protocol_id!r}; expected one of {', '.join(_PROTOCOLS)}")
    return _PROTOCOLS[protocol_id]


def protocol_ids() -> tuple[str, ...]:
    """Return the ids of all protocols."""
    return tuple(_PROTOCOLS)
