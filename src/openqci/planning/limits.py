"""What satellites and stations can do at once. Every default is an assumption of this project."""

from dataclasses import dataclass

from openqci.space.ranges import check_range


@dataclass(frozen=True)
class Limits:
    """Limits on board and on the ground.

    Attributes
    ----------
    slew_s : float
        From the end of one link of a satellite to the start of its next.
    turn_s : float
        The same of a station's telescope.
    link_s_per_day : float
        How long a satellite may hold quantum links within one day of UTC: power, heat and duty.
    store_bits : float
        On board, for what a link leaves until its key is made.
    record_bits_per_sifted_bit : float
        What the store holds of each: bit, basis, intensity and place.
    radio_bps : float
        By which the store is emptied while a radio station is in view, as post-processing is finished.
    """

    slew_s: float = 60.0
    turn_s: float = 30.0
    link_s_per_day: float = 7200.0
    store_bits: float = 1e9
    record_bits_per_sifted_bit: float = 16.0
    radio_bps: float = 2e6

    def __post_init__(self) -> None:
        check_range("slew_s", self.slew_s, 0.0, 3600.0)
        check_range("turn_s", self.turn_s, 0.0, 3600.0)
        check_range("link_s_per_day", self.link_s_per_day, 0.0, 86_400.0)
        check_range("store_bits", self.store_bits, 0.0, 1e15)
        check_range("record_bits_per_sifted_bit", self.record_bits_per_sifted_bit, 0.0, 1e6)
        check_range("radio_bps", self.radio_bps, 0.0, 1e12)
