"""How many different values a column has, told by pieces of it.

Rows of one piece lie side by side, so a value that fills a piece says no more than that it is there:
each value counts once for each piece that has it (Chaudhuri, Das and Srivastava, "Effective use of
block-level sampling in statistics estimation", SIGMOD 2004, there "collapse"). Values that most
pieces have are taken to be known. For the others the first-order jackknife speaks (Haas, Naughton,
Seshadri and Stokes, "Sampling-based estimation of the number of distinct values of an attribute",
VLDB 1995), and where their frequencies are skewed the larger of it and GEE, whose error has a bound
(Charikar, Chaudhuri, Motwani and Narasayya, "Towards estimation error guarantees for distinct
values", PODS 2000). There are never more values than runs of equal neighbours.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise

PIECES_MIN = 8
"""Fewer pieces are cut into so many each: next to one another is better than not at all."""
KNOWN_SHARE = 0.5
"""A value that more than this share of the pieces has is one of few."""
SKEW = 1.0
"""Squared coefficient of variation of the frequencies; at most this much is called even."""


def guess_distinct(pieces: Sequence[Sequence[Hashable]], rows: float) -> float:
    """Estimate how many different values there are among `rows`.

    Args:
        pieces: values of rows that lie side by side; each piece from another place.
        rows: of all places together, NULL left out as it is in the pieces.
    """
    sampled = sum(map(len, pieces))
    if not sampled:
        return 0.0
    if len(pieces) < PIECES_MIN:
        pieces = [part for piece in pieces for part in _cut(piece)]
    found = Counter(value for piece in pieces for value in set(piece))
    rows = max(rows, float(sampled))
    if rows <= sampled:
        return float(len(found))
    estimate = _estimate(pieces, found, sampled / rows)
    return max(float(len(found)), min(estimate, _runs(pieces, rows), rows))


def _cut(piece: Sequence[Hashable]) -> list[Sequence[Hashable]]:
    size = -(-len(piece) // PIECES_MIN) or 1
    return [piece[start : start + size] for start in range(0, len(piece), size)]


def _estimate(
    pieces: Sequence[Sequence[Hashable]], found: Counter[Hashable], share: float
) -> float:
    """Return the estimate of jackknife or GEE.

    Args:
        pieces: the values.
        found: how many pieces have each.
        share: of all rows, how much the pieces are.
    """
    often = max(1.0, KNOWN_SHARE * len(pieces))
    rare = {value: count for value, count in found.items() if count <= often}
    known = len(found) - len(rare)
    if not rare:
        return float(known)
    rows_of_rare = sum(value in rare for piece in pieces for value in piece) / share
    seen, once = sum(rare.values()), sum(count == 1 for count in rare.values())
    even = min(rows_of_rare, len(rare) / (1 - (1 - share) * once / seen))
    pairs = sum(count * (count - 1) for count in rare.values())
    if even * pairs / seen**2 - 1 <= SKEW:
        return known + even
    skewed = len(rare) - once + once / math.sqrt(share)
    return known + max(even, min(skewed, rows_of_rare))


def _runs(pieces: Sequence[Sequence[Hashable]], rows: float) -> float:
    """Estimate how often a row's value is another one than that of the row before it."""
    steps = sum(max(0, len(piece) - 1) for piece in pieces)
    if not steps:
        return rows
    changes = sum(one != other for piece in pieces for one, other in pairwise(piece))
    return 1 + rows * changes / steps


def guess_from_groups(groups: Sequence[tuple[float, float]], rows: float) -> float:
    """Estimate the different values of a column from their exact numbers in groups of its rows.

    Each group is taken for a random part of as many values as there are: of D values, n rows show
    D * (1 - exp(-n / D)) (Cardenas, "Analysis and performance of inverted data base structures",
    CACM 18(5), 1975).

    Args:
        groups: (rows, different values) of each.
        rows: of all groups, those that are not listed too.
    """
    told = [(count, distinct) for count, distinct in groups if count > 0 and distinct > 0]
    guesses = sorted(_unseen(count, distinct) for count, distinct in told)
    return min(rows, guesses[len(guesses) // 2]) if guesses else 0.0


def _unseen(rows: float, distinct: float) -> float:
    """Return the D of which `rows` draws show `distinct`, by halving."""
    low, high = distinct, distinct * 1e6
    if distinct >= rows * (1 - 1e-3):
        return high
    for _ in range(60):
        middle = math.sqrt(low * high)
        shown = -middle * math.expm1(-rows / middle)
        low, high = (middle, high) if shown < distinct else (low, middle)
    return low
