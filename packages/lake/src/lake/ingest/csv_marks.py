"""What one part of a CSV file says about its quotes, whichever part of the file it is.

A part may arrive before those in front of it, so it is not known whether it begins inside quotes. Its marks
answer for both cases, in three bits:

    odd             whether its number of quotes is odd, so that the part changes the state
    regular[0|1]    whether every quote that opens is where CSV lets one open, if the part begins
                    outside (0) or inside (1) quotes

The state at a part's start is then the XOR of the bits `odd` before it. This holds for files in which each
opening quote follows a delimiter, a line end or another quote (RFC 4180); of others, such as one with the field
`5" pipe`, the parity says nothing, and `regular` tells so.

    a,"x ""y"" z",b       quotes 1 to 6: 1, 3 and 5 open; 3 and 5 follow the quotes that they double
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from sennit_core.units import KIB

__all__ = ["BLOCK_BYTES", "PartMarks", "mark_part", "odd_quotes"]

BLOCK_BYTES = 256 * KIB
"""Read and marked at a time: the block and its comparison stay in the second-level cache."""
_LF, _CR = 0x0A, 0x0D

Octets = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PartMarks:
    """The marks of a part.

    Args:
        odd: Whether its number of quotes is odd.
        regular: Whether its quotes are regular if it begins outside of quotes, and if inside.
        last: Its last byte, which decides whether the next part may begin with an opening quote.
    """

    odd: bool
    regular: tuple[bool, bool]
    last: int


def odd_quotes(file: BinaryIO, quote: int) -> bool:
    """Return whether a file has an odd number of quotes; reads it once."""
    buffer = np.empty(BLOCK_BYTES, np.uint8)
    count = 0
    while size := file.readinto(buffer.data):  # type: ignore[attr-defined]
        count += int(np.count_nonzero(buffer[:size] == quote))
    return count % 2 == 1


def mark_part(file: BinaryIO, delimiter: int, quote: int, before: int | None) -> PartMarks:
    """Return the marks of a part; reads it once.

    Args:
        file: The part, at its start; it is not empty.
        delimiter: The delimiter, one ASCII character.
        quote: The quote.
        before: The byte before the part; None at the beginning of the text.
    """
    buffer = np.empty(BLOCK_BYTES, np.uint8)
    previous = _LF if before is None else before
    odd = False
    regular = [True, True]
    allowed = np.zeros(256, np.bool_)
    allowed[[delimiter, quote, _LF, _CR]] = True
    while size := file.readinto(buffer.data):  # type: ignore[attr-defined]
        block = buffer[:size]
        places = np.flatnonzero(block == quote)
        if len(places):
            fits = allowed[block[places - 1]]  # of place 0 this is the block's last byte: replaced
            if places[0] == 0:
                fits[0] = allowed[previous]
            # From outside, the quotes of even number open; from inside, those of odd number.
            for begins_inside in (0, 1):
                first = begins_inside ^ odd
                regular[begins_inside] &= bool(fits[int(first) :: 2].all())
            odd ^= bool(len(places) % 2)
        previous = int(block[-1])
    return PartMarks(odd, (regular[0], regular[1]), previous)
