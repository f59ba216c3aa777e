"""What the settings of Python functions do; `test_python_functions.py` has who may submit them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from opened_node import OpenNode, OpenNodes
from setting_effects import effect_of

from elytra import Elytra
from elytra.errors import StepFailed
from sennit_core.errors import Denied


def _pipeline(node: OpenNode) -> Any:
    client = Elytra(node.url, node.client.headers["authorization"].split()[1])
    return client.remote("rows")


def _wait(row: Any) -> int:
    import time

    time.sleep(100)
    return int(row.n)


@effect_of("elytra.allow_python", "elytra.python_bytes", "elytra.python_seconds")
def functions_run_only_where_they_may_and_have_limits(
    opened: OpenNodes, _folder: Path, _monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"python_bytes": 8 << 20, "python_seconds": 0.5}
    for allowed in (False, True):
        given = {"allow_python": allowed, **settings}
        node = opened({f"elytra.{name}": value for name, value in given.items()})
        node.node.lake.append("rows", pa.table({"n": [1]}))
        if not allowed:
            with pytest.raises(Denied, match=r"elytra\.allow_python"):
                _pipeline(node).map(_wait, opaque=True)
    large = _pipeline(node).map(lambda _: len(bytearray(1 << 25)), opaque=True, schema="Int64")
    with pytest.raises(StepFailed, match="MemoryError"):
        large.collect()
    with pytest.raises(StepFailed, match=r"within 0\.5 seconds"):
        _pipeline(node).map(_wait, opaque=True, schema="Int64").collect()
