"""Changes of a dataset at other nodes than its writer: sent to the writer, and made there once.

    sender                                      writer
    ChangeSender ── change (id, statement) ──▶  ChangeLedger: new?  ── run, commit with a receipt
         ▲                                          │  runs already? ── wait for it
         └────────── changed (version, count) ◀─────┘  has a receipt? ── answer from it

An answer may be lost with its connection, so the sender asks again with the same id. The receipt is
written in one write with the commit, and is kept until the request has expired; then it is refused. So a
change is never made twice, and what the writer refuses was not made.

Both are state machines without clock and I/O; `lake.peers.changes.changes` and `change_server` run them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, ClassVar, TypeAlias

from lake.distributed.receipts import Receipt
from lake.distributed.staged_inputs import StagedInput, check_inputs
from lake.peers.changes.claims import request_digest
from lake.peers.transport.machine import Call, Effect, Failed, Replied
from lake.peers.transport.messages import Message
from lake.peers.transport.signed import Statement
from lake.peers.transport.stop import SECONDS_MAX
from sennit_core.errors import BadInput, Busy, Conflict, DeadlineExceeded
from sennit_core.ids import is_id
from sennit_core.units import KIB

__all__ = [
    "MESSAGES",
    "STATEMENT_BYTES_MAX",
    "ChangeKnown",
    "ChangeLedger",
    "ChangeReply",
    "ChangeRequest",
    "ChangeSender",
    "Made",
    "Outcome",
    "Refused",
    "Step",
    "Unknown",
    "Unreached",
]

STATEMENT_BYTES_MAX = 128 * KIB
_NAME_MAX = 255
# The receipt of a request is kept no longer: two weeks for an append that has waited
# (`append_queue.ANSWER_SECONDS`), and an hour as clocks differ.
_EXPIRY_SECONDS_MAX = 14 * 24 * 3600.0 + 3600.0
_REACH_SECONDS = 3.0
_LOST_SECONDS = 30.0
_RETRY_SECONDS = (0.25, 4.0)
# What a session, or the check of a claim, refuses: it was not made now, but perhaps before.
_FINAL = ("bad-input", "denied", "unsupported")


@dataclass(frozen=True, slots=True)
class ChangeRequest(Message):
    """Asks the writer of a dataset to run a statement that changes it.

    Args:
        id: Made by the sender; the same in each repetition.
        dataset: Id of the dataset.
        name: Its name at the sender, as in the statement.
        sql: One INSERT, UPDATE, DELETE, MERGE or TRUNCATE over this dataset and `inputs`.
        params: Its parameters as JSON; "" for none.
        seconds: The statement's time limit.
        expires_at: Unix seconds after which it must not be made any more.
        claim: Who asks; a new one with each repetition.
        max_rows: Row limit of RETURNING.
        inputs: Further tables of the statement, whose rows are fetched from the sender.
    """

    kind: ClassVar[str] = "change"
    id: str
    dataset: str
    name: str
    sql: str
    params: str
    seconds: float
    expires_at: float
    claim: Statement | None = None
    # None, which is not sent, for what a node of an earlier version makes too.
    max_rows: int | None = None
    inputs: tuple[StagedInput, ...] | None = None

    @property
    def digest(self) -> str:
        """Identifies what is asked for."""
        return request_digest(self)

    @property
    def statement_bytes(self) -> int:
        """The size of the statement with its parameters."""
        return len(self.sql.encode("utf-8", "surrogatepass")) + len(self.params)

    def check(self) -> None:
        """Refuse a request that no node of this version makes.

        Raises:
            BadInput: A member is out of range.
        """
        is_valid = (
            is_id(self.id)
            and self.statement_bytes <= STATEMENT_BYTES_MAX
            and 0 < len(self.name) <= _NAME_MAX
            and 0 < self.seconds <= SECONDS_MAX
            and (self.max_rows is None or self.max_rows >= 0)
        )
        if not is_valid:
            raise BadInput("a change of another node", reason="a member is out of range")
        check_inputs(self.inputs or (), self.name)


@dataclass(frozen=True, slots=True)
class ChangeReply(Message):
    """The writer's answer.

    Args:
        version: Of a snapshot that has the change.
        count: The number of changed rows.
        error: Why the change was not made, as `SennitError.to_json`; empty if it was.
        returned: The bytes of RETURNING that can be read (`lake.peers.changes.returned_rows`); None if there are
            none, or none any more.
    """

    kind: ClassVar[str] = "changed"
    version: int = 0
    count: int = 0
    error: Mapping[str, Any] = field(default_factory=dict)
    returned: int | None = None


@dataclass(frozen=True, slots=True)
class ChangeKnown(Message):
    """Says that the sender knows how a change ended, and never asks again; also the answer to that.

    The writer then keeps the receipt for an hour instead of two weeks.

    Args:
        id: The change's.
    """

    kind: ClassVar[str] = "change-known"
    id: str


MESSAGES: tuple[type[Message], ...] = (ChangeRequest, ChangeReply, ChangeKnown)


@dataclass(frozen=True, slots=True)
class Made:
    """The change was made."""

    version: int
    count: int
    returned: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The writer has not made it, and says why."""

    error: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unreached:
    """It was not made, as the writer could not be reached."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """It was sent and may have been made: the connection was lost before the answer."""


Outcome: TypeAlias = Made | Refused | Unreached | Unknown


class ChangeSender:
    """Sends one change until its outcome is known, or the time is over.

    Args:
        writer: The node's id.
        request: The change.
        now: Seconds that never run backwards.
        answer_seconds: How long to wait for an answer before it is sent again; for as long as the
            statement may run where sessions notice a lost connection by themselves.
        was_sent: Whether an earlier sender of the request may have reached the writer.
    """

    UNREACHED = "unreached"
    """Code of a `Failed` for a request that did not leave this node."""

    def __init__(
        self,
        writer: str,
        request: ChangeRequest,
        *,
        now: float,
        answer_seconds: float,
        was_sent: bool = False,
    ) -> None:
        self.outcome: Outcome | None = None
        self._writer = writer
        self._request = request
        self._answer_seconds = answer_seconds
        self._until = now + request.seconds
        self._next = now
        self._wait = _RETRY_SECONDS[0]
        # Number of the request under way, and how many there were.
        self._open: int | None = None
        self._number = 0
        # Whether one may have reached the writer, and since when none was answered.
        self._was_sent = was_sent
        self._began = self._lost_at = now

    def tick(self, now: float) -> Iterator[Effect]:
        """Let time pass."""
        if self.outcome is not None or self._open is not None or now < self._next:
            return
        self._number += 1
        self._open = self._number
        seconds = max(min(self._answer_seconds, self._until - now), _RETRY_SECONDS[0])
        yield Call(self._writer, self._number, self._request, seconds)

    def wait_seconds(self, now: float) -> float:
        """Return after how many seconds `tick` has something to do."""
        return max(self._next - now, 0.0)

    def replied(self, result: Replied) -> None:
        """Handle an answer.

        Raises:
            BadInput: It is none.
        """
        if result.id != self._open or self.outcome is not None:
            return
        reply = result.message
        if not isinstance(reply, ChangeReply):
            raise BadInput("the answer to a change", reason=f"it is {reply.kind!r}")
        self._open = None
        self.outcome = (
            Refused(reply.error)
            if reply.error
            else Made(reply.version, reply.count, reply.returned)
        )

    def failed(self, result: Failed, now: float) -> None:
        """Handle a request without an answer."""
        if result.id != self._open or self.outcome is not None:
            return
        self._open = None
        if result.code in _FINAL:
            error = {"code": result.code, "error": result.reason}
            self.outcome = Unknown() if self._was_sent else Refused(error)
            return
        if result.code not in (self.UNREACHED, "busy") and not self._was_sent:
            self._was_sent, self._lost_at = True, now
        limit = self._lost_at + _LOST_SECONDS if self._was_sent else self._began + _REACH_SECONDS
        if now >= min(limit, self._until):
            self.outcome = Unknown() if self._was_sent else Unreached()
        self._next = now + self._wait
        self._wait = min(self._wait * 2, _RETRY_SECONDS[1])


class Step(Enum):
    """What the writer does with a request that has no receipt."""

    RUN = auto()
    JOIN = auto()


class ChangeLedger:
    """Decides what a writer does with the requests of other nodes.

    Args:
        find: Returns the receipt of a key.
        running_max: Changes that run at the same time.
        of_node_max: Those of one node.
    """

    def __init__(
        self,
        find: Callable[[str], Receipt | None],
        *,
        running_max: int = 16,
        of_node_max: int = 4,
    ) -> None:
        self._find = find
        self._running_max = running_max
        self._of_node_max = of_node_max
        # Digest and node of each change that runs, by its key.
        self._running: dict[str, tuple[str, str]] = {}

    @staticmethod
    def key(node: str, request: str) -> str:
        """Return the key of a request: no node can use up the ids of another."""
        return f"{node}_{request}"

    def begin(self, node: str, request: ChangeRequest, now: float) -> Receipt | Step:
        """Return the receipt of a change that was made, or what is to be done.

        Args:
            node: The sender.
            request: The change.
            now: Unix seconds.

        Raises:
            Conflict: The id is that of another change.
            DeadlineExceeded: It has expired; whether it was made is not known any more.
            Busy: Too many run.
        """
        key = self.key(node, request.id)
        running = self._running.get(key)
        found = None if running is not None else self._find(key)
        digest = running[0] if running is not None else None if found is None else found.digest
        if digest not in (None, request.digest):
            raise Conflict("the id of this change is that of another one")
        if running is not None:
            return Step.JOIN
        if found is not None:
            return found
        if not now <= request.expires_at <= now + _EXPIRY_SECONDS_MAX:
            raise DeadlineExceeded("the change of another node", request.seconds)
        of_node = sum(each == node for _, each in self._running.values())
        if len(self._running) >= self._running_max or of_node >= self._of_node_max:
            raise Busy("the writer", hint="it makes too many changes of other nodes")
        self._running[key] = (request.digest, node)
        return Step.RUN

    def end(self, node: str, request: ChangeRequest) -> None:
        """Note that a change does not run any more: it has a receipt, or was not made."""
        self._running.pop(self.key(node, request.id), None)
