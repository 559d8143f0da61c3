"""Counts to secret bits: how much of a reconciled block may be kept as key.

A proof is a plug-in with an id, a reference and one verb, ``secret_length_bits``; a device profile names its
proof, and rates under different proofs are not comparable. All are pure arithmetic on a few counts.

========================  ==========  ======================================================
id                        decoys      source
========================  ==========  ======================================================
``rusca-2018``            one         D. Rusca et al., Appl. Phys. Lett. 112, 171104 (2018)
``lim-2014``              two         C. C. W. Lim et al., Phys. Rev. A 89, 022307 (2014)
``wiesemann-2024``        one         J. Wiesemann et al., arXiv:2405.16578
``lim-2014-chernoff``     two         the same with Chernoff tails
``..-chernoff-capped``    two         and errors of single photons capped by all that were seen
``rusca-2018-chernoff``   one         with Chernoff tails
``wiesemann-2024-azuma``  one         with Azuma's tails
========================  ==========  ======================================================

These are the proofs of the key that the network distils, found by :func:`proof`. Other protocols take other
counts: entangled pairs (:mod:`openqci.proofs.entanglement`), quadratures (:mod:`openqci.proofs.gaussian`);
for endless blocks alone MDI (:mod:`openqci.proofs.mdi`) and twin field (:mod:`openqci.proofs.twin_field`).

**Bases.** Key bits come from Z and the phase error is estimated from X, everywhere in OpenQCI. Lim et al.
name them the other way round.

**Who subtracts what.** The caller books in ``leak_bits`` every bit that error correction disclosed. The
verification tag is paid for here by ``log2(2 / epsilon_cor)``; a caller that sends a longer tag in the clear
adds the difference to ``leak_bits``. The key of the message authentication is not in this account.

>>> counts = DecoyCounts(z_counts=(140_000, 122_000), z_errors=(2_900, 3_200), x_counts=(19_200, 16_700),
...                      x_errors=(400, 440), intensities=(0.33, 0.095), probabilities=(0.25, 0.75))
>>> kept = proof("rusca-2018").secret_length_bits(counts, 48_000, 1e-10, 1e-15)
>>> kept.length_bits > 60_000, kept.phase_error < 0.08
(True, True)

Asymptotic formulas, for planning and for comparison with published curves, are in
:mod:`openqci.proofs.asymptotic`, with the ceiling that nothing may cross. Read :mod:`openqci.proofs.counts`
first.
"""

from openqci.proofs.counts import DecoyCounts, FiniteKeyProof, KeyLength
from openqci.proofs.registry import proof, proof_ids

__all__ = ["DecoyCounts", "FiniteKeyProof", "KeyLength", "proof", "proof_ids"]
