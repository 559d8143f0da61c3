"""Attacks on quantum links as transformers of what the honest parties see.

Each attack changes the statistics of a link, and its outcome says which observable moves, whether a monitor
trips, what key a proof would still give and what is truly secret.
"""

from openqci.links.attacks.model import AttackOutcome, Observable, verdict

__all__ = ["AttackOutcome", "Observable", "verdict"]
