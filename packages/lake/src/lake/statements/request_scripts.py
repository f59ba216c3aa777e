"""Starts the several statements of one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, Self

from lake.statements.deadline import Deadline
from lake.statements.mentions import changes_data
from lake.statements.queries import check_parameters
from lake.statements.script_text import Block, Piece, Step, params_of_piece
from lake.statements.scripts import ScriptExecution, StepExecution, pieces_of
from lake.statements.transactions import TransactionExecution
from sennit_core.errors import Denied, Unsupported, UsageError

if TYPE_CHECKING:
    from lake.catalog.staged import StagedCatalog
    from lake.statements.request import StatementRequest
    from lake.statements.running import RunningStatement

__all__ = ["start_script"]


class Starter(Protocol):
    """Starts single statements (`lake.statements.statements.Statements`)."""

    def begin(self, request: StatementRequest, statement: RunningStatement) -> StepExecution:
        """Start a statement of a listed request."""
        ...

    def stage(self, block: Block) -> StagedCatalog:
        """Return a catalog for the changes of a transaction."""
        ...

    def over(self, catalog: StagedCatalog) -> Self:
        """Return one whose statements see and change these datasets."""
        ...


def start_script(
    statements: Starter,
    script: Sequence[Step],
    request: StatementRequest,
    running: RunningStatement,
) -> ScriptExecution:
    """Return the execution of a request's statements, which start when its result is read.

    Raises:
        Denied: One changes data, and the request is read-only: then none runs.
        UsageError: The parameters have no names, or no statement uses one.
    """
    _check(script, request)
    deadline = Deadline(request.deadline_seconds)

    def begin(step: Step, is_last: bool, committed: Sequence[int]) -> StepExecution:
        # Results that nobody reads are computed, for their errors.
        shown = request if is_last else replace(request, format="arrow")
        shown = replace(shown, deadline_seconds=deadline.left)
        if not isinstance(step, Block):
            params = params_of_piece(step, request.params)
            return statements.begin(replace(shown, sql=step.text, params=params), running)

        def begin_inside(staged: StagedCatalog, piece: Piece) -> StepExecution:
            params = params_of_piece(piece, request.params)
            own = replace(
                request,
                sql=piece.text,
                params=params,
                format="arrow",
                use_cache=False,
                deadline_seconds=deadline.left,
            )
            return statements.over(staged).begin(own, running)

        def count(rows: int) -> StepExecution:
            sql = f'SELECT CAST({rows} AS BIGINT) AS "Count"'
            own = replace(shown, sql=sql, params=None, max_rows=None, use_cache=False)
            return statements.begin(own, running)

        return TransactionExecution(
            step, lambda: statements.stage(step), begin_inside, count, committed
        )

    return ScriptExecution(script, begin, _changes)


def _check(script: Sequence[Step], request: StatementRequest) -> None:
    check_parameters(request.params)
    if request.describe or request.arrow_params is not None:
        raise Unsupported(
            "preparing several statements", hint="prepare one at a time, or run them at once"
        )
    if request.read_only and any(map(_changes, script)):
        raise Denied("changing a dataset", needed="writer")
    pieces = [piece for step in script for piece in pieces_of(step)]
    used = {name for piece in pieces for name in params_of_piece(piece, request.params) or ()}
    if unused := sorted(set(request.params or ()) - used):
        raise UsageError(f"no statement has a parameter ${unused[0]}")


def _changes(step: Step) -> bool:
    return any(changes_data(piece.text) for piece in pieces_of(step))
