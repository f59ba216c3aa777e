"""The protocol of operators: stages that batches are pulled from."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

from sennit_core.schema import Schema


class Operator(Protocol):
    """A stage of a running plan: batches are pulled from it, and it pulls from its inputs.

    `schema` is that of its batches. `batches` is called once; closing the iterator, at its end or
    before, releases everything that the operator reserved.
    """

    schema: Schema

    def batches(self) -> Generator[Any]:
        """Yield the rows as record batches."""
