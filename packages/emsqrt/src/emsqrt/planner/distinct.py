"""Estimate the number of distinct values of a column from samples of adjacent rows.

Rows of one piece are adjacent, so the frequency of a value inside a piece says little: each value
counts once for each piece that contains it (Chaudhuri, Das and Srivastava, "Effective use of
block-level sampling in statistics estimation", SIGMOD 2004, there "collapse"). Values in most
pieces are assumed to be completely known. For the others the first-order jackknife is used (Haas,
Naughton, Seshadri and Stokes, "Sampling-based estimation of the number of distinct values of an
attribute", VLDB 1995), and where their frequencies are skewed the larger of it and GEE, whose error
is bounded (Charikar, Chaudhuri, Motwani and Narasayya, "Towards estimation error guarantees for
distinct values", PODS 2000). The estimate is at most the number of runs of equal neighbours.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise

PIECES_MIN = 8
"""If there are fewer pieces, each is cut into this many: adjacent pieces are better than none."""
KNOWN_SHARE = 0.5
"""A value in more than this share of the pieces counts as one of few."""
SKEW = 1.0
"""Squared coefficient of variation of the frequencies; up to this they are treated as even."""


def guess_distinct(pieces: Sequence[Sequence[Hashable]], rows: float) -> float:
    """Estimate how many distinct values there are among `rows`.

    Args:
        pieces: values of adjacent rows; each piece is from another part of the source.
        rows: rows of the whole source, without NULL as in the pieces.
    """
    sampled = sum(map(len, pieces))
    if not sampled:
        return 0.0
    if len(pieces) < PIECES_MIN:
        pieces = [part for piece in pieces for part in _cut(piece)]
    found = Counter(value for piece in pieces for value in set(piece))
    # The estimate of the rows may be below what was sampled.
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
        found: the number of pieces that contain each value.
        share: the fraction of all rows that is in the pieces.
    """
    often = max(1.0, KNOWN_SHARE * len(pieces))
    rare = {value: count for value, count in found.items() if count <= often}
    known = len(found) - len(rare)
    if not rare:
        return float(known)
    rows_of_rare = sum(value in rare for piece in pieces for value in piece) / share
    # d distinct values, f1 of them in one piece only, n in all; a share q of the rows is sampled:
    #
    #     jackknife   d / (1 - (1 - q) f1 / n)
    #     GEE         d - f1 + f1 / sqrt(q)
    seen, once = sum(rare.values()), sum(count == 1 for count in rare.values())
    even = min(rows_of_rare, len(rare) / (1 - (1 - share) * once / seen))
    # The squared coefficient of variation of the frequencies, estimated from the pairs of equal
    # values (Haas et al.): even * Σ c (c - 1) / n² - 1.
    pairs = sum(count * (count - 1) for count in rare.values())
    if even * pairs / seen**2 - 1 <= SKEW:
        return known + even
    skewed = len(rare) - once + once / math.sqrt(share)
    return known + max(even, min(skewed, rows_of_rare))


def _runs(pieces: Sequence[Sequence[Hashable]], rows: float) -> float:
    """Estimate how often a row's value differs from that of the previous row."""
    steps = sum(max(0, len(piece) - 1) for piece in pieces)
    if not steps:
        return rows
    # Sorted or clustered columns: a value occurs in one run of neighbours, so there are never more
    # values than runs.
    changes = sum(one != other for piece in pieces for one, other in pairwise(piece))
    return 1 + rows * changes / steps


def guess_from_groups(groups: Sequence[tuple[float, float]], rows: float) -> float:
    """Estimate the distinct values of a column from their exact numbers in groups of its rows.

    Each group is treated as a random sample of the rows: of D values, n rows contain D * (1 -
        exp(-n / D)) (Cardenas, "Analysis and performance of inverted data base structures",
    CACM 18(5), 1975).

    Args:
        groups: (rows, distinct values) of each.
        rows: of all groups, including those that are not listed.
    """
    known = [(count, distinct) for count, distinct in groups if count > 0 and distinct > 0]
    # The median, as a few groups may be unusual.
    guesses = sorted(_unseen(count, distinct) for count, distinct in known)
    return min(rows, guesses[len(guesses) // 2]) if guesses else 0.0


def _unseen(rows: float, distinct: float) -> float:
    """Return by bisection the D of which `rows` draws contain `distinct`."""
    low, high = distinct, distinct * 1e6
    # Almost all rows differ: any large number explains that equally well.
    if distinct >= rows * (1 - 1e-3):
        return high
    for _ in range(60):
        # Geometric: the answer may be anywhere between `distinct` and a million times as much.
        middle = math.sqrt(low * high)
        shown = -middle * math.expm1(-rows / middle)
        low, high = (middle, high) if shown < distinct else (low, middle)
    return low
