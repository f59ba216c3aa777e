"""The verbs that run Python functions on rows; only pipelines of `Elytra.local()` have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from elytra.local.derived import Derivation, DerivedSource, derived_scan, sample_outputs
from elytra.local.python_steps import (
    BATCH_ROWS,
    BatchForm,
    PythonStep,
    Verb,
    declared_schema,
)
from elytra.pipelines.running import Runnable
from emsqrt.plan import Plan, Scan, walk
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from elytra.tracing.function import Shape

Declared: TypeAlias = Mapping[str, str] | Schema | str | None
"""The columns that a function returns: types by name, or the type of a single value."""


class Opaque(Runnable):
    """Adds functions that are called with rows; they never leave the process of the caller."""

    __slots__ = ()

    if TYPE_CHECKING:
        _shape: Shape

        @property
        def schema(self) -> Schema:
            """The columns of the result."""
            ...

        def _grow(self, plan: Plan, shape: Shape = "row") -> Self: ...

    def map_batches(
        self,
        function: Callable[[Any], Any],
        *,
        schema: Declared = None,
        batch_rows: int = BATCH_ROWS,
        form: BatchForm = "arrow",
    ) -> Self:
        """Apply a function to batches of rows: a table in, a table out; only in `Elytra.local()`.

        Args:
            function: Receives an Arrow record batch, or a DataFrame. Returns Arrow data, a
                DataFrame, or a dict of columns, of any number of rows.
            schema: The columns of what it returns. Without them the function is called now, with
                the first rows, to find them.
            batch_rows: The most rows of a batch.
            form: "arrow", "pandas" or "polars": the form of a batch.

        Raises:
            Unsupported: The pipeline belongs to a node.
            StepFailed: The function fails for the first rows.
        """
        if batch_rows < 1:
            raise UsageError(f"map_batches(batch_rows={batch_rows}): at least 1 is needed")
        return self._apply("map_batches", function, schema, batch_rows=batch_rows, form=form)

    def cache(self) -> Self:
        """Compute the rows at the first run and keep them in a file until the session is closed.

        Raises:
            Unsupported: The pipeline belongs to a node.
        """
        self._require_local("cache", "save_as(name) stores the rows as a dataset")
        kept = Derivation(self.plan, None, self.schema, self._shape, keep=True)
        return self._grow(derived_scan(kept), self._shape)

    def _apply(
        self,
        verb: Verb,
        function: Callable[..., Any],
        declared: Declared,
        **options: Any,
    ) -> Self:
        local = self._require_local(
            f"{verb} of a function that is not traced",
            "write it with expressions, or collect the rows and call it on them",
        )
        step = PythonStep(verb, function, self._shape, self._label(verb, function), **options)
        if declared is None:
            found, shape = sample_outputs(step, self.plan, self.schema, local.batches)
        else:
            found, shape = declared_schema(declared)
        return self._grow(derived_scan(Derivation(self.plan, step, found, shape)), shape)

    def _label(self, verb: str, function: Callable[..., Any]) -> str:
        name = getattr(function, "__name__", type(function).__name__)
        return f"step {_depth(self.plan) + 1}, {verb}({name})"

    def _require_local(self, what: str, hint: str) -> Any:
        local = self._origin.local
        if local is None:
            raise Unsupported(
                f"{what} runs only in Elytra.local(): Python functions are not sent to nodes",
                hint=hint,
            )
        return local


def _depth(plan: Plan) -> int:
    """Return the number of verbs that made a plan, also before the Python functions in it."""
    depth = 0
    for node in walk(plan):
        if not isinstance(node, Scan):
            depth += 1
        elif isinstance(node.source, DerivedSource) and node.source.derivation is not None:
            depth += _depth(node.source.derivation.upstream) + 1
    return depth
