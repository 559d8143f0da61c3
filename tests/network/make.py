"""The smallest true scenario: two towns in two countries, one fibre, one pair of applications."""

from collections.abc import Mapping
from pathlib import Path

FILES = {
    "scenario.yaml": """\
version: 1
name: pair
title: Two towns
stock: {low_bits: 1000, high_bits: 2000, pair_low_keys: 1, pair_high_keys: 2}
""",
    "sites.yaml": """\
version: 1
sites:
  - {id: at-one, name: One, kind: trusted_node, country: AT, lat: 48.0, lon: 16.0}
  - {id: sk-two, name: Two, kind: trusted_node, country: SK, lat: 48.0, lon: 17.0}
""",
    "links.yaml": """\
version: 1
links:
  - {id: one--two, a: at-one, b: sk-two, type: cross_border, fibre_km: 200.0}
""",
    "devices.yaml": """\
version: 1
devices:
  - id: my-device
    clock_rate_hz: 1.0e+9
    signal_intensity: 0.5
    decoy_intensity: 0.1
    signal_probability: 0.5
    z_basis_probability: 0.9
    receiver_loss_db: 3
    detector_efficiency: 0.2
    dark_count_probability: 1.0e-6
    dead_time_s: 0.0
    afterpulse_probability: 0.0
    misalignment_error: 0.01
    block_sifted_bits: 65536
    epsilon_sec: 1.0e-9
    epsilon_cor: 1.0e-15
    reference: none
""",
    "demand.yaml": """\
version: 1
saes:
  - {id: sae-one, site: at-one}
  - {id: sae-two, site: sk-two}
flows:
  - {master: sae-one, slave: sae-two, keys_per_s: 0.5}
""",
}


def write_scenario(folder: Path, changes: Mapping[str, str | None] | None = None) -> Path:
    """Write the smallest scenario; a change replaces a whole file, None leaves it out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (FILES | dict(changes or {})).items():
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def edited(file: str, *edits: tuple[str, str]) -> dict[str, str | None]:
    """Return a change that replaces text in one file; the text must be there."""
    text = FILES[file]
    for old, new in edits:
        assert old in text, f"{old!r} is not in {file}"
        text = text.replace(old, new, 1)
    return {file: text}
