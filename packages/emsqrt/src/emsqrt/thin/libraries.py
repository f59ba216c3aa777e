"""What only pyarrow can do on this Python; the text tier's process never loads it.

Loading pyarrow and numpy under a cap that was admitted without them ends in whatever their C code
does where memory is refused: an abort, a message of OpenBLAS, a lost process. So each such use is
found before the process starts, and the plan runs in the arrow tier, whose admission counts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emsqrt.io import codecs
from emsqrt.io.locations import Location
from emsqrt.thin.text import NotThin

_ARROW_SCHEME = "gs"
"""Google Cloud Storage is reached through pyarrow's client, other stores through obstore."""


def arrow_spills(spilling: Mapping[str, Any]) -> bool:
    """Return whether spilling needs pyarrow.

    Args:
        spilling: as `EngineConfig.spilling` has it.
    """
    if spilling.get("codec") == "zstd" and codecs.zstd_needs_arrow():
        return True
    return str(spilling.get("uri", "")).startswith(f"{_ARROW_SCHEME}://")


def refuse_arrow_locations(places: Sequence[Location]) -> None:
    """Raise `NotThin` if pyarrow is needed to read or write one of the places."""
    for place in places:
        if place.scheme == _ARROW_SCHEME:
            raise NotThin(f"{place} is reached through pyarrow")
