"""The error rate and the yield of a recording over time, one point for each block."""

from collections.abc import Sequence
from pathlib import Path

from openqci.cli.distil.outcome import BlockOutcome
from openqci.cli.link.files import written_whole
from openqci.cli.link.plotting import empty_figure


def plot_outcomes(file: Path, outcomes: Sequence[BlockOutcome], qber_max: float) -> None:
    """Draw QBER (both bases) and secret bits per second over the time of the recording."""
    figure, axes = empty_figure()
    rates = axes.twinx()
    middles = [(each.begin_s + each.end_s) / 2 for each in outcomes]
    for label, values in (
        ("QBER, key basis", [each.report.qber for each in outcomes]),
        ("QBER, test basis", [each.report.test_qber for each in outcomes]),
    ):
        axes.plot(middles, [100 * value for value in values], "o-", label=label)
    axes.axhline(100 * qber_max, color="k", linestyle="--", label="limit")
    yields = [each.report.secret_bits / max(1e-12, each.end_s - each.begin_s) for each in outcomes]
    rates.plot(middles, yields, "s-", color="tab:green", label="key")
    axes.set(xlabel="time of the recording, s", ylabel="QBER, %")
    rates.set_ylabel("secret key, bit/s")
    axes.set_ylim(bottom=0)
    rates.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    lines = [*axes.get_lines(), *rates.get_lines()]
    axes.legend(lines, [line.get_label() for line in lines], fontsize="small")
    with written_whole(file) as drawing:
        figure.savefig(
            drawing, format=file.suffix[1:], metadata={"Date": None} if file.suffix == ".svg" else None
        )
