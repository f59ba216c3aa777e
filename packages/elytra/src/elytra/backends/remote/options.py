"""How a node uses its remote workers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from elytra.backends.remote.sessions import RemoteLimits

__all__ = ["RemoteOptions"]


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """How remote workers are used.

    Args:
        trust: "trust" checks the form of results; "sample" also runs some tasks on the node, and
            compares the rows.
        sample_share: Of the tasks, from 0 to 1, in the mode "sample"; a job may ask for more, in both modes.
        input_bytes: Disk for inputs that no task uses at the moment.
        limits: Limits of the protocol.
        chance: Returns a number from 0 to 1 that no worker can predict.
    """

    trust: Literal["trust", "sample"] = "sample"
    sample_share: float = 0.05
    input_bytes: int = 1 << 30
    limits: RemoteLimits = field(default_factory=RemoteLimits)
    chance: Callable[[], float] = random.SystemRandom().random
