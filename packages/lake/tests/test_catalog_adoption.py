"""Versions of other nodes' datasets that the catalog takes."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from lake import Lake
from lake.catalog.manifests import Manifests
from sennit_core.errors import Corrupt
from sennit_core.ids import new_id
from sennit_core.records import DatasetInfo
from sennit_core.schema import Schema


def test_a_version_without_columns_is_refused_and_leaves_no_row(lake: Lake) -> None:
    lake.append("t", pa.table({"a": [1]}))
    stored = lake.catalog.stored_manifest("t")
    dataset, nothing = new_id(), Schema(())
    state = replace(stored.snapshot, id=new_id(), dataset=dataset, schema=nothing, shards=())
    manifest = Manifests(lake.objects).write(replace(stored, snapshot=state, lists=()))
    info = DatasetInfo(dataset, "empty", "ann", nothing, node="f" * 64)

    with pytest.raises(Corrupt, match="columns"):
        lake.catalog.adopter.adopt(info, manifest)

    assert [each.name for each in lake.catalog.list()] == ["t"]
