"""Which proofs there are, by the id that device profiles and key provenance carry."""

from openqci.core.errors import ConfigurationError
from openqci.proofs.counts import FiniteKeyProof
from openqci.proofs.one_decoy import (
    RUSCA_2018,
    RUSCA_2018_CHERNOFF,
    WIESEMANN_2024,
    WIESEMANN_2024_AZUMA,
)
from openqci.proofs.two_decoy import LIM_2014, LIM_2014_CHERNOFF, LIM_2014_CHERNOFF_CAPPED

_PROOFS: dict[str, FiniteKeyProof] = {
    each.proof_id: each
    for each in (
        LIM_2014,
        LIM_2014_CHERNOFF,
        LIM_2014_CHERNOFF_CAPPED,
        RUSCA_2018,
        RUSCA_2018_CHERNOFF,
        WIESEMANN_2024,
        WIESEMANN_2024_AZUMA,
    )
}


def proof(proof_id: str) -> FiniteKeyProof:
    """Return the proof of this id; ConfigurationError names those that there are."""
    if proof_id not in _PROOFS:
        raise ConfigurationError(f"unknown proof {proof_id!r}; expected one of {', '.join(_PROOFS)}")
    return _PROOFS[proof_id]


def proof_ids() -> tuple[str, ...]:
    """Return the ids of all proofs."""
    return tuple(_PROOFS)
