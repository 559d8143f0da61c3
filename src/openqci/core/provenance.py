"""What an end-to-end key knows about its own making, without any key material (invariant I7)."""

import msgspec


class Provenance(msgspec.Struct, frozen=True):
    """Where an end-to-end key came from.

    ``epsilon`` is the sum of the composable security parameters of the link keys spent on the route: the
    union bound over the hops. ``form`` is the relay form of ITU-T Y.3803 that was used.
    """

    route: tuple[str, ...]
    links: tuple[str, ...]
    hops: int
    protocols: tuple[str, ...]
    proofs: tuple[str, ...]
    epsilon: float
    form: str
    simulated: bool
    made_at_s: float
