"""emsqrt.spill: blocks of rows that do not fit memory, on disk or in an object store.

Layering: errors <- store (the interface of a file store) <- area, local, clients, objects <-
placement; segment, compression <- writer, reader <- spilling <- deferred. No third-party package is
imported before an object store is opened.
"""

from emsqrt.spill.deferred import open_spill
from emsqrt.spill.errors import SpillDamaged, SpillError, SpillFull, SpillLost
from emsqrt.spill.placement import default_spill_dir
from emsqrt.spill.reader import SegmentReader
from emsqrt.spill.segment import Segment
from emsqrt.spill.spilling import SpillManager, SpillStats
from emsqrt.spill.writer import SegmentWriter

__all__ = [
    "Segment",
    "SegmentReader",
    "SegmentWriter",
    "SpillDamaged",
    "SpillError",
    "SpillFull",
    "SpillLost",
    "SpillManager",
    "SpillStats",
    "default_spill_dir",
    "open_spill",
]
