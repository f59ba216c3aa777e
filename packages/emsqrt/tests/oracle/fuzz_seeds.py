"""Which cases a fuzz test runs."""

from __future__ import annotations

import os
import random


def seeds(count: int, *, drawn: bool = False) -> range:
    """Return seeds that follow one another, from `FUZZ_SEED` on where that is set.

    Args:
        count: how many.
        drawn: whether they begin anywhere; else at 1, so that what a plain run says is about the
            code alone.
    """
    configured = os.environ.get("FUZZ_SEED")
    drawn_first = random.SystemRandom().randrange(1 << 32) if drawn else 1
    first = int(configured) if configured else drawn_first
    return range(first, first + count)
