"""The tests of what settings do, by setting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from opened_node import OpenNodes

Effect = Callable[[OpenNodes, Path, pytest.MonkeyPatch], None]
EFFECTS: dict[str, Effect] = {}


def effect_of(*names: str) -> Callable[[Effect], Effect]:
    def register(test: Effect) -> Effect:
        EFFECTS.update(dict.fromkeys(names, test))
        return test

    return register
