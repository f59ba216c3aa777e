"""Where the plans of derived pipelines run: a node's client, or a local session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from elytra.client.job_handle import Job
from elytra.client.result import Result
from elytra.local.derived import DerivedSource
from elytra.pipelines.source_columns import Reader, columns_of_source
from emsqrt.plan import DatasetRef, Plan
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from elytra.local.runner import LocalRunner

__all__ = ["Origin", "Runner"]


class Runner(Protocol):
    """What runs plans: `elytra.client.client.Client`, or a session of this machine."""

    def submit(self, plan: Plan, **options: Any) -> Job:
        """Start a job."""
        ...

    def run(self, plan: Plan, *, timeout_seconds: float | None = None, **options: Any) -> Result:
        """Run a job and return its result."""
        ...


@dataclass(slots=True)
class Origin:
    """The node or session that derived pipelines share; each dataset's schema is requested once.

    Args:
        runner: Runs plans.
        local: The same, if it is a session of this machine; None for a node.
    """

    runner: Runner
    local: LocalRunner | None = None
    _schemas: dict[DatasetRef, Schema] = field(default_factory=dict)

    def schema(self, ref: DatasetRef) -> Schema:
        """Return the columns of a source."""
        if isinstance(ref, DerivedSource) and ref.derivation is not None:
            return ref.derivation.schema
        if ref not in self._schemas:
            assert isinstance(self.runner, Reader), "other sources are those of a node"
            self._schemas[ref] = columns_of_source(self.runner, ref)
        return self._schemas[ref]
