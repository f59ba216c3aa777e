"""The appends of a node that wait for the writers of their datasets: durable rows and pinned objects.

    pin the objects ─▶ write the row ─▶ the user gets the id
    remove the row ─▶ unpin, which deletes the objects

A crash in between leaves a pin without a row, which the next start removes. What an append becomes is decided
by `lake.peers.changes.append_queue`. May be used by any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from elkyn.records import CheckedTable, write_changes
from lake._failpoints import reached
from lake.distributed.staged_inputs import objects_of
from lake.peers.changes.append_queue import (
    ANSWER_SECONDS,
    AppendQueue,
    Deliver,
    DropAppend,
    Effect,
    NotSent,
    QueuedAppend,
    StoreAppend,
)
from lake.peers.changes.forwarding import Outcome
from lake.statements.limits import Requester
from sennit_core.errors import Conflict, Corrupt, Denied, NotFound, SennitError, Unsupported
from sennit_core.ids import id_time, new_id
from sennit_core.logs import get_logger

if TYPE_CHECKING:
    from elkyn import ElkynStore
    from lake.access.policies import Policies
    from lake.distributed.remote_shards import ForeignChange
    from lake.storage import Storage
    from sennit_core.clock import Clock

__all__ = ["QueuedAppends", "expiry_of", "shown"]

_log = get_logger(__name__)
_PIN = "queued append "


def expiry_of(append: str) -> float:
    """Return the Unix seconds until which an append with this id is sent."""
    return id_time(append) + ANSWER_SECONDS


class QueuedAppends:
    """The queued appends of one lake.

    Args:
        storage: Has the datasets and their objects.
        tree: The namespace `sys`.
        policies: The access policies.
        clock: Source of times.
    """

    def __init__(
        self, storage: Storage, tree: ElkynStore, policies: Policies, clock: Clock
    ) -> None:
        self._tree = tree
        self._table = CheckedTable(tree, "/queued", QueuedAppend)
        self._catalog, self._retention = storage.catalog, storage.retention
        self._policies = policies
        self._clock = clock
        self._lock = threading.Lock()
        self.find_role: Callable[[str, str], str | None] = lambda _user, role: role
        """Returns the role that a user has now, from the name and the role then; None if there is none.

        The node's access control sets it; a lake that a program opens has no users.
        """
        self._queue = AppendQueue(self._load())
        self._quotas = storage.quotas
        self._quotas.queued_by = self.bytes_of

    def bytes_of(self, user: str) -> int:
        """Return the bytes of a user's appends, with those that have ended.

        It takes no lock: a commit, which asks for it, holds that of the catalog.
        """
        return sum(each.bytes for each in list(self._queue.appends.values()) if each.user == user)

    def _load(self) -> list[QueuedAppend]:
        found, damaged = [], False
        for name in self._table.ids():
            try:
                row = self._table.get(name)
            except Corrupt as error:
                # Its objects stay pinned: another row cannot say that they are not needed.
                _log.error("a queued append is damaged: %s", error)
                damaged = True
            else:
                if row is not None:
                    found.append(row)
        kept = {each.pin for each in found}
        for pin in () if damaged else self._retention.pins():
            if pin.reason.startswith(_PIN) and pin.id not in kept:
                self._retention.unpin(pin.id)
        return found

    def __len__(self) -> int:
        return len(self._queue.appends)

    def list(self, requester: Requester | None = None) -> Sequence[QueuedAppend]:
        """Return the appends that a user may see, in order: one's own; all for admins and None."""
        with self._lock:
            found = self._queue.in_order()
        return [each for each in found if requester is None or _may_see(each, requester)]

    def find(self, append: str) -> QueuedAppend | None:
        """Return an append; None if it is not, or no more, queued."""
        with self._lock:
            return self._queue.appends.get(append)

    def holds(self, change: ForeignChange) -> bool:
        """Return whether an append is queued, or has to wait behind one that is."""
        with self._lock:
            return change.id in self._queue.appends or self._queue.has_open(change.dataset)

    def add(self, change: ForeignChange, writer: str, *, was_sent: bool) -> None:
        """Queue an append whose objects are leased; it is durable when this returns.

        Args:
            change: The append, with its id and expiry.
            writer: The node that writes the dataset.
            was_sent: Whether it may have been made.

        Raises:
            StorageFull: The user's quota has no room for its rows.
            SennitError: As `AppendQueue.add`.
        """
        assert change.expires_at is not None, "it has the expiry of its id"
        now = self._clock.now()
        append = QueuedAppend(
            change.id, 0, change.dataset, change.name, writer, change.user.name, change.user.role,
            change.sql, change.params, change.seconds, now, change.expires_at, change.inputs,
            state="sent" if was_sent else "waiting", is_repeated=change.is_repeated,
        )  # fmt: skip
        with self._lock:
            stored = self._queue.add(append, now)
            if stored is not None:
                # Under the lock, so that two cannot use the same room. One that was sent may be
                # committed already: a refusal would say that it is not.
                if append.bytes and not was_sent:
                    self._quotas.check_room(append.user, "a queued append", append.bytes)
                names = objects_of(change.inputs)
                pin = self._retention.pin(names, f"{_PIN}{change.id}").id if names else ""
                reached("append-pinned")
                self._perform(StoreAppend(replace(stored.append, pin=pin)))
                reached("append-queued")

    def tick(self, now: float, alive: Collection[str]) -> Sequence[QueuedAppend]:
        """Return the appends to send now; end each with `ended`."""
        with self._lock:
            due = []
            for effect in list(self._queue.tick(now, self._clock.now(), alive)):
                if isinstance(effect, Deliver):
                    due.append(effect.append)
                else:
                    try:
                        self._perform(effect)
                    except SennitError as error:  # a full disk; the next tick tries again
                        _log.warning("append %s: %s", effect.append.id, error)
            return due

    def sending(self, append: QueuedAppend, writer: str) -> Requester:
        """Return the user of an append, which is durably noted as sent.

        Raises:
            Cancelled: It was removed.
            SennitError: As `user_of`.
        """
        user = self.user_of(append)
        with self._lock:
            effect = self._queue.sending(append.id, writer)
            if effect is not None:
                self._perform(effect)
        reached("append-sending")
        return user

    def user_of(self, append: QueuedAppend) -> Requester:
        """Return the user of an append as of now.

        Raises:
            Denied: The user may not append any more.
            NotFound: The dataset is not shared with this node any more.
            Unsupported: This node writes it.
        """
        info = self._catalog.find(append.dataset)
        if info is None:
            raise NotFound("dataset", append.name, None)
        if info.node is None:
            raise Unsupported(
                f"a queued append to dataset {append.name!r}, which this node writes now",
                hint="append to it without --queue",
            )
        role = append.role
        if append.user or append.role:
            found = self.find_role(append.user, append.role)
            if found is None:
                raise Denied(
                    f"a queued append of user {append.user!r}",
                    needed="a token with this name that may write",
                )
            role = found
        user = Requester(append.user, is_admin=role == "admin", may_write=True, role=role)
        self._policies.check_change(append.dataset, user)
        return user

    def ended(self, append: str, outcome: Outcome | NotSent, now: float) -> None:
        """Handle the end of an attempt; it is repeated by the caller if it raises an error of the disk."""
        with self._lock:
            effect = self._queue.ended(append, outcome, now)
            if effect is not None:
                self._perform(effect)
            self._queue.settled(append)

    def abandoned(self, append: str) -> None:
        """Note that an attempt was stopped; the append stays as it is."""
        with self._lock:
            self._queue.settled(append)

    def remove(self, append: str, requester: Requester, *, forget: bool = False) -> QueuedAppend:
        """Take an append back, or remove one that has ended; return it.

        Args:
            append: Its id.
            requester: The user.
            forget: Whether to remove it although it may be committed.

        Raises:
            NotFound: There is none, as far as the user can know.
            Conflict: It may be committed.
        """
        with self._lock:
            self._check(append, requester)
            effect = self._queue.remove(append, forget=forget)
            self._perform(effect)
            return effect.append

    def retry(self, append: str, requester: Requester) -> QueuedAppend:
        """Queue an append again that was refused, or has expired; return the new one.

        Raises:
            NotFound: There is none, as far as the user can know.
            Conflict: It waits, or may be committed.
        """
        new = new_id(self._clock)
        with self._lock:
            old = self._check(append, requester)
            effect = self._queue.retry(append, new, expiry_of(new), self._clock.now())
            write_changes(
                self._tree, self._table.change(old.id, None), self._table.change(new, effect.append)
            )
            self._queue.apply(DropAppend(old))
            self._queue.apply(effect)
            return effect.append

    def close(self) -> None:
        """End all that waits: this node leaves its network."""
        error = Conflict("this node has left the network of the dataset")
        with self._lock:
            for effect in list(self._queue.close(error)):
                self._perform(effect)

    def _check(self, append: str, requester: Requester) -> QueuedAppend:
        found = self._queue.appends.get(append)
        if found is None or not _may_see(found, requester):
            raise NotFound("queued append", append[:80], None)
        return found

    def _perform(self, effect: Effect) -> None:
        append = effect.append
        if isinstance(effect, StoreAppend):
            self._table.put(append.id, append)
        else:
            self._table.remove(append.id)
        self._queue.apply(effect)
        if isinstance(effect, DropAppend) and append.pin:
            reached("append-dropped")
            with suppress(NotFound):
                self._retention.unpin(append.pin)


def _may_see(append: QueuedAppend, requester: Requester) -> bool:
    if requester.is_trusted or requester.node:
        return requester.is_trusted
    return append.user == requester.name


def shown(append: QueuedAppend) -> dict[str, Any]:
    """Return an append as lists show it."""
    return {
        "id": append.id,
        "dataset": append.name,
        "datasetId": append.dataset,
        "writer": append.writer,
        "user": append.user,
        "state": append.state,
        "statement": append.sql,
        "bytes": append.bytes,
        "queuedAt": append.queued_at,
        "expiresAt": append.expires_at if append.was_sent else append.waits_until,
        "error": None if append.error is None else dict(append.error),
    }
