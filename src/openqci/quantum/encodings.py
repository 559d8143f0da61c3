"""What a bit is written in, and what that costs in the receiver: phase, time bin, polarisation.

The protocol and its proof are the same for the three; the receivers differ in loss, in the light that
reaches the wrong detector, and in whether these are equal in both bases. ``ReceiverOptics`` carries just
that; :func:`openqci.quantum.detectors.receiver_of` adds a detector to it.

Left out: imperfect preparation (a state of Alice's that points elsewhere needs its own proof), the drift
of the fibre (:mod:`openqci.quantum.drift`), and loss of the modulators beyond the figure given.
"""

from dataclasses import dataclass
from typing import Literal

from openqci.quantum.elements import BasisChoice, check_basis_choice, check_range

INTERFEROMETER_LOSS_DB = 3.0102999566398120
"""Half of the light leaves an unbalanced interferometer in the outer time slots, where it says nothing."""

MODULATOR_LOSS_DB = 3.0
"""A phase or polarisation modulator that chooses the basis. Typical, not from a source."""

Encoding = Literal["phase", "time-bin", "polarisation"]


@dataclass(frozen=True)
class ReceiverOptics:
    """What stands between the fibre and Bob's detectors.

    Parameters
    ----------
    loss_db : float
        In the path of the key basis Z; the detector is not in it, nor is the division of a passive choice.
    misalignment_error : float
        Fraction of the light at the wrong detector in Z, 0 to 0.5.
    x_extra_loss_db : float
        What the path of the test basis X loses besides.
    x_misalignment_error : float, optional
        In X; as in Z when not given.
    basis_choice : {"active", "passive"}
        A modulator and two detectors, or a splitter and four.
    """

    loss_db: float
    misalignment_error: float = 0.0
    x_extra_loss_db: float = 0.0
    x_misalignment_error: float | None = None
    basis_choice: BasisChoice = "active"

    def __post_init__(self) -> None:
        check_range("loss_db", self.loss_db, 0.0, 200.0)
        check_range("misalignment_error", self.misalignment_error, 0.0, 0.5)
        check_range("x_extra_loss_db", self.x_extra_loss_db, 0.0, 100.0)
        if self.x_misalignment_error is not None:
            check_range("x_misalignment_error", self.x_misalignment_error, 0.0, 0.5)
        check_basis_choice(self.basis_choice)


def misalignment_of_visibility(visibility: float) -> float:
    """Return the error ``(1 - V) / 2`` of an interference or polarisation contrast V, 0 to 1."""
    check_range("visibility", visibility, 0.0, 1.0)
    return (1 - visibility) / 2


def misalignment_of_extinction_db(extinction_db: float) -> float:
    """Return the error ``1 / (1 + R)`` of an extinction ratio R of powers, given in dB (0 or more)."""
    check_range("extinction_db", extinction_db, 0.0, 100.0)
    return 1 / (1 + float(10 ** (extinction_db / 10)))


def phase_optics(
    visibility: float = 0.98, loss_db: float = MODULATOR_LOSS_DB, basis_choice: BasisChoice = "active"
) -> ReceiverOptics:
    """Return the receiver of phase encoding: both bases interfere, so both lose the outer slots.

    Parameters
    ----------
    visibility : float
        Of the interference, 0 to 1.
    loss_db : float
        Modulator, couplers and splices, without the 3 dB of the interferometer.
    """
    error = misalignment_of_visibility(visibility)
    return ReceiverOptics(loss_db + INTERFEROMETER_LOSS_DB, error, basis_choice=basis_choice)


def timebin_optics(
    extinction_db: float = 25.0,
    visibility: float = 0.98,
    loss_db: float = 1.0,
    basis_choice: BasisChoice = "passive",
) -> ReceiverOptics:
    """Return the receiver of time-bin encoding: Z is a time of arrival, only X needs the interferometer.

    Parameters
    ----------
    extinction_db : float
        Power in the full over power in the empty time bin, in dB.
    visibility : float
        Of the interference in X.
    loss_db : float
        In the path of Z, without the division of a passive choice.

    Notes
    -----
    Left out: a passive receiver may share one detector for both time bins; its second detector's dark
    counts are then those of a second window, and the count is the same.
    """
    return ReceiverOptics(
        loss_db,
        misalignment_of_extinction_db(extinction_db),
        x_extra_loss_db=INTERFEROMETER_LOSS_DB,
        x_misalignment_error=misalignment_of_visibility(visibility),
        basis_choice=basis_choice,
    )


def polarisation_optics(
    extinction_db: float = 20.0, loss_db: float = 1.0, basis_choice: BasisChoice = "passive"
) -> ReceiverOptics:
    """Return the receiver of polarisation encoding: equal in both bases, no interferometer.

    Parameters
    ----------
    extinction_db : float
        Of the polarising beam splitter with the alignment as it is, power in dB.
    loss_db : float
        Optics; an active choice costs a modulator besides.
    """
    modulator_db = MODULATOR_LOSS_DB if basis_choice == "active" else 0.0
    error = misalignment_of_extinction_db(extinction_db)
    return ReceiverOptics(loss_db + modulator_db, error, basis_choice=basis_choice)
