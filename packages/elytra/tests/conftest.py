"""The worlds that tests share."""

from typing import Any

import pytest

from elytra.pipeline import Pipeline
from emsqrt.plan import Plan
from sennit_core.records import DatasetInfo
from sennit_core.schema import DataType, Field, Schema

SCHEMA = Schema(
    tuple(
        Field(name, DataType.parse(kind))
        for name, kind in (
            ("carrier", "Utf8"),
            ("origin", "Utf8"),
            ("distance", "Float64"),
            ("air_time", "Int64"),
        )
    )
)


class Drawer:
    """A runner that knows one schema and remembers what was submitted."""

    def __init__(self) -> None:
        self.submitted: list[tuple[Plan, dict[str, Any]]] = []

    def dataset(self, id_or_name: str) -> DatasetInfo:
        return DatasetInfo(id="d", name=id_or_name, owner="", schema=SCHEMA)

    def submit(self, plan: Plan, **options: Any) -> Any:
        self.submitted.append((plan, options))


@pytest.fixture
def drawer() -> Drawer:
    return Drawer()


@pytest.fixture
def flights(drawer: Drawer) -> Pipeline:
    """A pipeline over a dataset that only exists as a schema."""
    return Pipeline.over(drawer, "flights")
