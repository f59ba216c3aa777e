"""The verbs that run Python functions on rows: here in `Elytra.local()`, else where a node allows it.

A node gets the function as text (`elytra.functions.program`), after it has said that it runs functions
of this user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, runtime_checkable

from elytra.functions.program import program_of
from elytra.functions.step import FunctionStep
from elytra.local.derived import Derivation, DerivedSource, derived_scan, sample_outputs
from elytra.local.python_steps import (
    BATCH_ROWS,
    NO_INITIAL,
    BatchForm,
    PythonStep,
    Verb,
    declared_schema,
)
from elytra.pipelines.running import Runnable
from emsqrt.plan import Plan, Scan, walk
from sennit_core.errors import Denied, Unsupported, UsageError
from sennit_core.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

    from elytra.tracing.function import Shape

Declared: TypeAlias = Mapping[str, str] | Schema | str | None
"""The columns that a function returns: types by name, or the type of a single value."""


@runtime_checkable
class FunctionNode(Protocol):
    """What of a client knows whether its node runs functions."""

    def python_functions(self) -> dict[str, Any]:
        """Return the document of `GET /api/plans/functions`."""
        ...


class Opaque(Runnable):
    """Adds functions that are called with rows."""

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
        """Apply a function to batches of rows: a table in, a table out.

        In `Elytra.local()`, and of a node that runs functions of this user.

        Args:
            function: Receives an Arrow record batch, or a DataFrame. Returns Arrow data, a
                DataFrame, or a dict of columns, of any number of rows.
            schema: The columns of what it returns. Without them the function is called now, with
                the first rows, to find them.
            batch_rows: Rows of a batch; the last one may have fewer.
            form: "arrow", "pandas" or "polars": the form of a batch.

        Raises:
            Denied: The node runs no functions of this user.
            Unsupported: The function cannot be sent to the node; the message names what of it.
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
        local = self._origin.local
        if local is None:
            self._check_node(verb)
            # Before a row is read: what cannot be sent is refused at once.
            program = program_of(function, options.get("initial", NO_INITIAL))
        step = PythonStep(verb, function, self._shape, self._label(verb, function), **options)
        if declared is None:
            read = self._batches if local is None else local.batches
            found, shape = sample_outputs(step, self.plan, self.schema, read)
        else:
            found, shape = declared_schema(declared)
        if local is None:
            sent = FunctionStep(
                verb, program, step.label, step.shape, shape, step.batch_rows, step.form
            )
            return self._grow(sent.over(self.plan, found), shape)
        return self._grow(derived_scan(Derivation(self.plan, step, found, shape)), shape)

    def _check_node(self, verb: Verb) -> None:
        """Ask the node whether it runs functions; nothing of one has been sent."""
        runner = self._origin.runner
        if not isinstance(runner, FunctionNode):
            raise Unsupported(
                f"{verb} of a function that is not traced runs only in Elytra.local(), or at a node "
                "that allows it",
                hint="write it with expressions, or collect the rows and call it on them",
            )
        answer = runner.python_functions()
        if not answer["allowed"]:
            raise Denied(
                f"{verb} of a function that is not traced: {answer['reason']}",
                hint="write it with expressions, or collect the rows and call it on them",
            )

    def _batches(self, plan: Plan) -> Iterator[pa.RecordBatch]:
        """Run a plan at the node and yield its rows: the first ones, which a function is tried with."""
        yield from self._origin.runner.run(plan, engine="auto").to_arrow().to_batches()

    def _label(self, verb: str, function: Callable[..., Any]) -> str:
        name = getattr(function, "__name__", type(function).__name__)
        return f"step {_depth(self.plan) + 1}, {verb}({name[:100]})"

    def _require_local(self, what: str, hint: str) -> Any:
        local = self._origin.local
        if local is None:
            raise Unsupported(
                f"{what} runs only in Elytra.local()",
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
