"""Recorded time tags to raw key: what a real receiver gives to the distillation.

===============================  ===========================================================================
:func:`read_tags`                Bob's tags from a file (docs/reference/recordings.md); :func:`write_tags`
:func:`read_emissions`           Alice's pulses from a file; :func:`write_emissions`
:func:`check_same_run`           do both tell of the same run?
:func:`detections_of`            tags to Bob's :class:`~openqci.core.detections.DetectionRecord`
``RecordedEmissions.record``     pulses to Alice's :class:`~openqci.core.detections.EmissionRecord`
===============================  ===========================================================================

On the way: the clock by sync tags (``clock``), the phase by times of arrival (``phase``), slots, gate and
dead time (``slots``), double clicks and the account of every tag (``synchronisation``).

*Promises.* Only times and public settings decide which clicks are kept, never a bit. Every tag is accounted
for. Without a synchronisation that can be told there is an error and no record.

*Not promised.* That slots are numbered right: a sync channel that is told wrongly shifts all slots alike.
Half of the bits are then wrong, and the distillation aborts. Nothing here tries other shifts: that would
choose among keys by their errors.
"""

from openqci.distillation.recorded.files import read_emissions, read_tags, write_emissions, write_tags
from openqci.distillation.recorded.recordings import (
    DetectorChannel,
    RecordedEmissions,
    RecordedTags,
    SyncChannel,
    check_same_run,
)
from openqci.distillation.recorded.synchronisation import SynchronisationReport, detections_of

__all__ = [
    "DetectorChannel",
    "RecordedEmissions",
    "RecordedTags",
    "SyncChannel",
    "SynchronisationReport",
    "check_same_run",
    "detections_of",
    "read_emissions",
    "read_tags",
    "write_emissions",
    "write_tags",
]
