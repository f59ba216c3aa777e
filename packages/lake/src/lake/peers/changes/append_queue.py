"""Appends that wait at a node while the writer of their dataset is away, and what becomes of each.

               ┌──────── not reached ────────┐
               ▼                             │
    add ─▶ waiting ── session is open ──▶ sent ── committed ──▶ (no row)
               │                             ├── refused ─────▶ refused
               └── 7 days ─▶ expired         └── no answer in 14 days ─▶ unknown

An append has one id for its whole life, which is that of its change (`forwarding`). It is sent again until
the writer says how it ended, so its receipt there makes it once. `sent` is durable before the first byte
leaves: such an append may be committed, and cannot be taken back.

A state machine without clock and I/O: its methods return what is to be stored, and `apply` makes that its state
once it is durable. `lake.distributed.queued_appends` stores, `lake.peers.changes.deliveries` sends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from lake.distributed.staged_inputs import StagedInput, bytes_of
from lake.peers.changes.forwarding import Made, Outcome, Refused, Unknown, Unreached
from sennit_core.errors import Busy, Cancelled, Conflict, NotFound, SennitError, TooLarge
from sennit_core.records import Record
from sennit_core.units import GIB

__all__ = [
    "ANSWER_SECONDS",
    "WAIT_SECONDS",
    "AppendQueue",
    "Deliver",
    "DropAppend",
    "Effect",
    "NotSent",
    "QueuedAppend",
    "StoreAppend",
]

_DAY = 24 * 3600.0
WAIT_SECONDS = 7 * _DAY
"""How long an append waits that was never sent."""
ANSWER_SECONDS = 14 * _DAY
"""How long the writer answers for one that was sent: its receipts are kept for so long."""
_APPENDS_MAX = 1000
_BYTES_MAX = 16 * GIB
_PARALLEL_MAX = 4
"""As many changes of one node run at a writer (`ChangeLedger`)."""
_RETRY_SECONDS = (1.0, 60.0)
_OPEN = ("waiting", "sent")
# What has not been made, and may be made later without a change of the append.
_PASSING = (
    "busy", "cancelled", "closed", "conflict", "deadline-exceeded", "storage-full", "unavailable",
    "waiting-to-join", "worker-lost",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class QueuedAppend(Record):
    """An append that waits, or has ended without a commit.

    Args:
        id: Of its change; also of the upload, if it is one.
        number: Its place: appends to a dataset are made in this order.
        dataset: Id of the dataset.
        name: Its name in the statement.
        writer: The node that writes it; for one that was sent, where.
        user: Who appends.
        role: The user's role then.
        sql: The INSERT.
        params: Its parameters as JSON; "" for none.
        seconds: Its time limit at the writer.
        queued_at: Unix seconds.
        expires_at: Unix seconds until which it is sent again.
        inputs: The rows that it brings, as objects of this node.
        pin: The pin of these objects; "" for none.
        state: `waiting`, `sent`, `refused`, `expired` or `unknown`.
        is_repeated: Whether it may also be sent by the ingest of its upload, after a crash.
        error: Why it ended, or was not made the last time, as `SennitError.to_json`.
    """

    id: str
    number: int
    dataset: str
    name: str
    writer: str
    user: str
    role: str
    sql: str
    params: str
    seconds: float
    queued_at: float
    expires_at: float
    inputs: tuple[StagedInput, ...] = ()
    pin: str = ""
    state: str = "waiting"
    is_repeated: bool = False
    error: Mapping[str, Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it may still be committed by being sent."""
        return self.state in _OPEN

    @property
    def was_sent(self) -> bool:
        """Whether it may be committed already."""
        return self.state in ("sent", "unknown")

    @property
    def waits_until(self) -> float:
        """Unix seconds until which it waits if it is never sent."""
        return self.expires_at - ANSWER_SECONDS + WAIT_SECONDS

    @property
    def bytes(self) -> int:
        """The size of its objects."""
        return bytes_of(self.inputs)


@dataclass(frozen=True, slots=True)
class Deliver:
    """Send an append to its writer, and call `ended`."""

    append: QueuedAppend


@dataclass(frozen=True, slots=True)
class StoreAppend:
    """Make an append durable as it is here."""

    append: QueuedAppend


@dataclass(frozen=True, slots=True)
class DropAppend:
    """Remove an append, and let its objects go."""

    append: QueuedAppend


@dataclass(frozen=True, slots=True)
class NotSent:
    """This node did not send it, for a reason of its own: the user has no right to it any more."""

    error: Mapping[str, Any]


Effect: TypeAlias = StoreAppend | DropAppend


@dataclass(slots=True)
class _Line:
    """When the first append to a dataset is tried next."""

    next: float
    wait: float = _RETRY_SECONDS[0]


class AppendQueue:
    """The appends that wait at a node.

    Args:
        appends: Those that were stored.
        appends_max: The most, with those that have ended.
        bytes_max: The most bytes of their objects.
    """

    def __init__(
        self,
        appends: Iterable[QueuedAppend] = (),
        *,
        appends_max: int = _APPENDS_MAX,
        bytes_max: int = _BYTES_MAX,
    ) -> None:
        self.appends = {each.id: each for each in appends}
        self._appends_max = appends_max
        self._bytes_max = bytes_max
        self._lines: dict[str, _Line] = {}
        # The appends that are being sent.
        self._delivering: set[str] = set()
        self._alive: frozenset[str] = frozenset()

    def apply(self, effect: Effect) -> None:
        """Take over what is durable now."""
        if isinstance(effect, DropAppend):
            self.appends.pop(effect.append.id, None)
        else:
            self.appends[effect.append.id] = effect.append

    def in_order(self) -> list[QueuedAppend]:
        """Return all appends, the first one first."""
        return sorted(self.appends.values(), key=lambda each: each.number)

    def has_open(self, dataset: str) -> bool:
        """Return whether an append to a dataset waits, behind which the next one has to wait."""
        return any(each.dataset == dataset and each.is_open for each in self.appends.values())

    def add(self, append: QueuedAppend, wall: float) -> StoreAppend | None:
        """Queue an append behind all others; None if it is queued already.

        Args:
            append: The append, with any number.
            wall: Unix seconds.

        Raises:
            Busy: Too many wait.
            TooLarge: Their rows are too many.
            Conflict: It has waited, and ended.
        """
        known = self.appends.get(append.id)
        if known is not None and known.is_open:
            return None
        if known is not None or wall > append.waits_until:
            raise Conflict(
                f"append {append.id} has waited, and has ended", hint="platform net queue says how"
            )
        if len(self.appends) >= self._appends_max:
            raise Busy(
                f"{len(self.appends)} appends are queued, as many as a node keeps",
                hint="wait until they are delivered, or remove some: platform net queue",
            )
        found = append.bytes + sum(each.bytes for each in self.appends.values())
        if found > self._bytes_max:
            hint = "wait until they are delivered, or remove some: platform net queue"
            raise TooLarge("the rows of queued appends", self._bytes_max, found, hint=hint)
        number = 1 + max((each.number for each in self.appends.values()), default=0)
        return StoreAppend(replace(append, number=number))

    def tick(self, now: float, wall: float, alive: Collection[str]) -> Iterator[Effect | Deliver]:
        """Let time pass.

        Args:
            now: Seconds that never run backwards.
            wall: Unix seconds.
            alive: The nodes that can be reached; one that was not is tried at once.
        """
        woken = frozenset(alive) - self._alive
        self._alive = frozenset(alive)
        first: dict[str, QueuedAppend] = {}
        for each in self.in_order():
            if not each.is_open:
                continue
            if each.id not in self._delivering and (ended := _overdue(each, wall)) is not None:
                yield StoreAppend(ended)
            else:
                first.setdefault(each.dataset, each)
        self._lines = {name: self._lines.get(name) or _Line(now) for name in first}
        for dataset, each in first.items():
            line = self._lines[dataset]
            if each.writer in woken:
                line.next, line.wait = now, _RETRY_SECONDS[0]
            is_free = len(self._delivering) < _PARALLEL_MAX and each.id not in self._delivering
            if is_free and line.next <= now:
                self._delivering.add(each.id)
                yield Deliver(each)

    def sending(self, append: str, writer: str) -> StoreAppend | None:
        """Return what is to be durable before an append leaves this node.

        Raises:
            Cancelled: It was removed.
        """
        found = self.appends.get(append)
        if found is None or not found.is_open:
            raise Cancelled(f"append {append}")
        return None if found.was_sent else StoreAppend(replace(found, state="sent", writer=writer))

    def ended(self, append: str, outcome: Outcome | NotSent, now: float) -> Effect | None:
        """Handle the end of an attempt; the attempt is over once `settled` is called."""
        found = self.appends.get(append)
        if found is None or not found.is_open:
            return None
        is_over = isinstance(outcome, Made | Refused | NotSent) and not _passes(outcome)
        if is_over:
            # The next append follows at once: the writer is there.
            self._lines[found.dataset] = _Line(now)
        else:
            self._wait_longer(found.dataset, now)
        match outcome:
            case Made():
                return DropAppend(found)
            case Refused(error) if _passes(outcome):
                # Known not to be made, so it can be taken back again.
                return StoreAppend(replace(found, state="waiting", error=error))
            case Refused(error):
                return StoreAppend(replace(found, state="refused", error=error))
            case NotSent() if _passes(outcome):
                return None
            case NotSent(error):
                state = "unknown" if found.was_sent else "refused"
                return StoreAppend(replace(found, state=state, error=error))
            case Unreached() if found.was_sent:
                return StoreAppend(replace(found, state="waiting"))
            case Unreached() | Unknown():
                return None

    def settled(self, append: str) -> None:
        """Note that an attempt is over, and its outcome durable."""
        self._delivering.discard(append)

    def _wait_longer(self, dataset: str, now: float) -> None:
        line = self._lines.setdefault(dataset, _Line(now))
        line.next = now + line.wait
        line.wait = min(2 * line.wait, _RETRY_SECONDS[1])

    def remove(self, append: str, *, forget: bool = False) -> DropAppend:
        """Take an append back, or remove one that has ended.

        Args:
            append: Its id.
            forget: Whether to remove it although it may be committed.

        Raises:
            NotFound: There is none.
            Conflict: It may be committed.
        """
        found = self._find(append)
        if found.state == "sent" and not forget:
            raise Conflict(
                f"append {append} was sent, and may be committed",
                hint="it ends when the writer answers; --forget removes it here, committed or not",
            )
        return DropAppend(found)

    def retry(self, append: str, new: str, expires_at: float, wall: float) -> StoreAppend:
        """Return an append that was not made as a new one, behind all others.

        Args:
            append: Its id.
            new: The new id.
            expires_at: Of the new one.
            wall: Unix seconds.

        Raises:
            NotFound: There is none.
            Conflict: It may be committed, or waits still.
        """
        found = self._find(append)
        if found.state not in ("refused", "expired"):
            raise Conflict(
                f"append {append} is {found.state}",
                hint="only refused and expired ones are retried",
            )
        number = 1 + max(each.number for each in self.appends.values())
        return StoreAppend(
            replace(
                found, id=new, number=number, queued_at=wall, expires_at=expires_at, state="waiting",
                is_repeated=False, error=None,
            )
        )  # fmt: skip

    def close(self, error: SennitError) -> Iterator[Effect]:
        """End all that is open: the network is left."""
        for each in self.in_order():
            if each.is_open:
                state = "unknown" if each.was_sent else "refused"
                yield StoreAppend(replace(each, state=state, error=error.to_json()))
        self._delivering.clear()

    def _find(self, append: str) -> QueuedAppend:
        found = self.appends.get(append)
        if found is None:
            raise NotFound("queued append", append[:80], None)
        return found


def _passes(outcome: Made | Refused | NotSent) -> bool:
    """Return whether an append was not made for a reason that may end without a change of it."""
    return not isinstance(outcome, Made) and outcome.error.get("code") in _PASSING


def _overdue(append: QueuedAppend, wall: float) -> QueuedAppend | None:
    """Return how an append ends whose time is over; None if it is not."""
    if append.was_sent:
        return replace(append, state="unknown") if wall > append.expires_at else None
    return replace(append, state="expired") if wall > append.waits_until else None
