"""What the setting of JavaScript functions does; `test_javascript_functions.py` has who may submit them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from opened_node import OpenNodes
from setting_effects import effect_of

from elytra.functions.javascript import JavascriptStep
from emsqrt.plan import DatasetRef, Scan
from sennit_core.errors import Denied
from sennit_core.schema import Schema


@effect_of("elytra.allow_javascript")
def functions_are_sent_only_where_they_may(
    opened: OpenNodes, _folder: Path, _monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = Schema.from_arrow(pa.schema({"value": pa.int64()}))
    step = JavascriptStep("map", "(r) => r.n", "step 1, map", returns_value=True)
    for allowed in (False, True):
        node = opened({"elytra.allow_javascript": allowed}).node
        node.lake.append("rows", pa.table({"n": [1]}))
        plan = step.over(Scan(DatasetRef("rows")), schema)
        if allowed:
            job = node.jobs.submit(plan, engine="browser", submitted_by="a", role="admin")
            assert node.jobs.cancel(job.id).engine == "browser"
        else:
            with pytest.raises(Denied, match=r"elytra\.allow_javascript"):
                node.jobs.submit(plan, engine="browser", submitted_by="a", role="admin")
