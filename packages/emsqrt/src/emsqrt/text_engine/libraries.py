"""Find features that need pyarrow on this Python; the text engine's process never imports it.

Importing pyarrow and numpy under a cap that was admitted without them ends in their C code's
reaction to refused memory: an abort, a message of OpenBLAS, a lost process. So each such feature is
found before the process starts, and the plan runs in the arrow tier, which counts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emsqrt.io import codecs
from emsqrt.io.locations import Location
from emsqrt.text_engine.text import TextUnsupported

_ARROW_SCHEME = "gs"
"""Google Cloud Storage is accessed through pyarrow's client, other stores through obstore."""


def arrow_spills(spilling: Mapping[str, Any]) -> bool:
    """Return whether spilling needs pyarrow.

    Args:
        spilling: as returned by `EngineConfig.spilling`.
    """
    if spilling.get("codec") == "zstd" and codecs.zstd_needs_arrow():
        return True
    return str(spilling.get("uri", "")).startswith(f"{_ARROW_SCHEME}://")


def refuse_arrow_locations(places: Sequence[Location]) -> None:
    """Raise `TextUnsupported` if pyarrow is needed to read or write one of the places."""
    for place in places:
        if place.scheme == _ARROW_SCHEME:
            raise TextUnsupported(f"{place} is accessed through pyarrow")
