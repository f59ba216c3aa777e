"""The logs in which nodes publish datasets, and how they spread: a state machine.

A node has one log for all members, and one for each node that it shares something with alone. Each entry
is a statement of the publisher with the next number and the digest of the entry before, so no other can
change, drop or insert one on the way, and two entries of one number prove that a key was used twice (a
node restored from a backup, or a stolen key).

    log (publisher, audience)      1 ◀── 2 ◀── 3 ◀── 4 ◀── 5 ◀── …
                                         └ checkpoint in two parts: all that is published

A checkpoint repeats the state, so that entries before it need not be kept, and a node that was away for
long need not read them: its first part needs no entry before it. Logs for one node are exchanged with that node only;
no other learns of them.

New entries are pushed to some peers at once. Heads of all logs are compared with a random peer from
time to time, which also brings what a push has missed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, Protocol

from lake.catalog.node_key import NodeKey
from lake.peers.sharing.publication_log import (
    EVERYONE,
    LOG_BYTES_MAX,
    LogKey,
    StoredLog,
    bytes_of,
    parts_of,
    with_change,
)
from lake.peers.transport.machine import Effect, Send
from lake.peers.transport.messages import Message
from lake.peers.transport.signed import CLOCK_SKEW_SECONDS, Statement, sign
from sennit_core.errors import BadInput, Denied, SennitError
from sennit_core.units import KIB

__all__ = [
    "EVERYONE",
    "MESSAGES",
    "EntrySigner",
    "LogForked",
    "LogKey",
    "PublicationOptions",
    "Publications",
    "Published",
    "StatementEntrySigner",
    "StoreLog",
    "StoredLog",
]

_KIND = "publication"
_ENTRIES_BYTES_MAX = 160 * KIB
_HEADS_MAX = 1000
_ANSWERS_MAX = 32
_OFFERED_BYTES_MAX = 640 * KIB
"""What is sent at once as an answer to heads, which are small. The next comparison goes on."""
# Longer than any node may be away and come back with old data (tombstones count as long too).
ENTRY_SECONDS = 180 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Heads(Message):
    """The heads of the logs that the sender knows and the receiver may see.

    Args:
        heads: Number and digest of the newest entry, by log.
        complete: Whether these are all. Of others the receiver does not know what the sender has.
    """

    kind: ClassVar[str] = "log-heads"
    heads: Mapping[str, Any]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Entries(Message):
    """Consecutive entries of one log, the oldest first."""

    kind: ClassVar[str] = "log-entries"
    entries: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Want(Message):
    """Asks for the entries of a log after a number."""

    kind: ClassVar[str] = "log-want"
    log: str
    after: int


MESSAGES: tuple[type[Message], ...] = (Heads, Entries, Want)


@dataclass(frozen=True, slots=True)
class PublicationOptions:
    """Times and numbers.

    Args:
        compare_seconds: Between two comparisons of heads.
        fanout: To how many peers a new entry is pushed.
        checkpoint_entries: After so many entries the publisher repeats its state.
        renewal_seconds: Between two looks at whether it has to for another reason.
    """

    compare_seconds: float = 5.0
    fanout: int = 3
    checkpoint_entries: int = 256
    renewal_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class StoreLog:
    """An effect: these entries are to be durable before anything else is performed.

    Args:
        key: The log.
        entries: The entries that were added, in order.
        pruned_before: Entries below this number are not needed any more.
    """

    key: LogKey
    entries: tuple[Statement, ...]
    pruned_before: int


@dataclass(frozen=True, slots=True)
class Published:
    """An effect: a publisher describes a dataset anew.

    Args:
        key: The log.
        dataset: Its id.
        item: What the publisher says of it; None if it is withdrawn.
    """

    key: LogKey
    dataset: str
    item: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class LogForked:
    """An effect: two entries of one number exist, so the publisher's key was used twice.

    Args:
        key: The log.
        number: Of the entries.
    """

    key: LogKey
    number: int


class EntrySigner(Protocol):
    """Signs and verifies entries; the simulation has one without cryptography."""

    def sign(self, body: Mapping[str, Any], now: float) -> Statement:
        """Return an entry of this node."""
        ...

    def read(self, entry: Statement, now: float) -> Mapping[str, Any]:
        """Return the body of an entry that its publisher has signed.

        Raises:
            Denied: It does not count.
        """
        ...


class StatementEntrySigner:
    """Signs with the node's key.

    Args:
        key: The key.
    """

    def __init__(self, key: NodeKey) -> None:
        self._key = key

    def sign(self, body: Mapping[str, Any], now: float) -> Statement:
        """Return an entry of this node."""
        return sign(self._key, _KIND, body, now=now, seconds=ENTRY_SECONDS)

    def read(self, entry: Statement, now: float) -> Mapping[str, Any]:
        """Return the body of an entry that its publisher has signed."""
        return entry.verify(_KIND, now, signer=str(entry.body.get("publisher")))


class Publications:
    """The logs of one node: its own, and those of others.

    Args:
        node: The node's id.
        signer: Signs and verifies entries.
        is_member: Whether a node belongs to the network.
        random: Decides with whom heads are compared.
        options: Times and numbers.
        logs: The entries that were stored, by log.
        damaged: The logs of which entries were stored that cannot be read.
        wall: Unix seconds, for signatures.
    """

    def __init__(  # noqa: PLR0913 - what a machine depends on
        self,
        node: str,
        signer: EntrySigner,
        is_member: Callable[[str], bool],
        random: Random,
        options: PublicationOptions | None = None,
        *,
        logs: Mapping[LogKey, Sequence[Statement]],
        wall: Callable[[], float],
        damaged: Collection[LogKey] = (),
    ) -> None:
        self._node = node
        self._signer = signer
        self._is_member = is_member
        self._random = random
        self._options = options or PublicationOptions()
        self._wall = wall
        self._damaged = frozenset(damaged)
        self._next_compare = self._next_renewal = 0.0
        self.forked: set[str] = set()
        """The publishers with two entries of one number, noticed since this node was started."""
        self.logs: dict[LogKey, StoredLog] = {}
        for key, entries in logs.items():
            for entry in entries:
                self._log(key).add(entry.body, entry)

    def items(self) -> Iterator[tuple[LogKey, str, Mapping[str, Any]]]:
        """Yield what is published and not withdrawn: the log, the dataset's id, the description."""
        for key, log in self.logs.items():
            for dataset, item in log.items.items():
                yield key, dataset, item

    def is_whole(self, publisher: str) -> bool:
        """Return whether what a publisher says to this node is known, and none of it was damaged."""
        found = [LogKey(publisher, audience) for audience in (EVERYONE, self._node)]
        return any(key in self.logs for key in found) and self._damaged.isdisjoint(found)

    def publish(
        self, dataset: str, item: Mapping[str, Any] | None, audience: str, alive: Sequence[str]
    ) -> Iterator[Effect]:
        """Describe a dataset anew in one of this node's logs; nothing happens if that says the same.

        Args:
            dataset: Its id.
            item: The description; None withdraws it.
            audience: The node that may know it, or `EVERYONE`.
            alive: The nodes that can be reached.
        """
        key = LogKey(self._node, audience)
        log = self._log(key)
        if log.items.get(dataset) == item:
            return
        if self._must_renew(log):  # no other node accepts an entry after those of this log
            new = self._checkpoint(key, with_change(log.items, dataset, item))
        else:
            new = [self._append(key, {"dataset": dataset, "item": item})]
        if len(log.entries) > log.checkpoint_parts + self._options.checkpoint_entries:
            new += self._checkpoint(key, log.items)
        yield from self._announce(key, new, alive)

    def _announce(
        self, key: LogKey, new: Sequence[Statement], alive: Sequence[str]
    ) -> Iterator[Effect]:
        """Store new entries of one of this node's logs, and send them to some peers."""
        yield StoreLog(key, tuple(new), self._log(key).first)
        for peer in self._chosen(key, alive, without=self._node):
            yield Send(peer, _batch(new))

    def _checkpoint(self, key: LogKey, items: Mapping[str, Mapping[str, Any]]) -> list[Statement]:
        """Say all that one of this node's logs is to say, in as many entries as that needs."""
        parts = parts_of(items)
        return [
            self._append(key, {"items": items, "part": number, "parts": len(parts)})
            for number, items in enumerate(parts)
        ]

    def _append(self, key: LogKey, content: Mapping[str, Any]) -> Statement:
        log = self._log(key)
        body = {
            "publisher": key.publisher,
            "audience": key.audience,
            "number": max(log.number, log.lost_number) + 1,
            "previous": log.digest,
            **content,
        }
        entry = self._signer.sign(body, self._wall())
        log.add(body, entry)
        return entry

    def tick(self, now: float, alive: Sequence[str]) -> Iterator[Effect]:
        """Let time pass.

        Args:
            now: Seconds that never run backwards.
            alive: The nodes that can be reached.
        """
        if now >= self._next_renewal:
            self._next_renewal = now + self._options.renewal_seconds
            for key in [key for key in self.logs if key.publisher == self._node]:
                if self._must_renew(self._log(key)):
                    new = self._checkpoint(key, self._log(key).items)
                    yield from self._announce(key, new, alive)
        if now >= self._next_compare and alive:
            self._next_compare = now + self._options.compare_seconds * self._random.uniform(
                0.8, 1.2
            )
            peer = self._random.choice(alive)
            yield Send(peer, self._heads_for(peer))

    def greet(self, peer: str) -> Effect:
        """Return the first message to a node that was just connected."""
        return Send(peer, self._heads_for(peer))

    # Messages

    def receive(self, peer: str, message: Message, alive: Sequence[str]) -> Iterable[Effect]:
        """Handle a message of a member.

        Args:
            peer: The sender.
            message: The message.
            alive: The nodes that can be reached.
        """
        return list(self._on(message, peer, alive)) if self._is_member(peer) else []

    def _on(self, message: Message, peer: str, alive: Sequence[str]) -> Iterable[Effect]:
        match message:
            case Heads():
                return self._on_heads(message, peer)
            case Want():
                return self._on_want(message, peer)
            case Entries():
                return self._on_entries(message, peer, alive)
        raise BadInput("a message of a peer", reason=f"{message.kind} is not about logs")

    def _on_heads(self, message: Heads, peer: str) -> Iterator[Effect]:
        wanted = 0
        heads = list(message.heads.items())[:_HEADS_MAX]
        for text, head in self._random.sample(heads, len(heads)):
            if wanted >= _ANSWERS_MAX:
                break
            key = LogKey.parse(text)
            number = head[0] if isinstance(head, (list, tuple)) and len(head) == 2 else None
            if not isinstance(number, int) or not self._may_have(key, peer):
                continue
            known = self.logs.get(key)
            own = 0 if known is None else known.number
            entry = None if known is None else known.at(number)
            if number > own:
                wanted += 1
                yield Send(peer, Want(text, own))
            elif entry is not None and head[1] != entry.digest:
                # The peer has another entry of this number: the two prove that the log is forked.
                wanted += 1
                yield Send(peer, Want(text, number - 1))
        yield from self._offer(peer, message)

    def _offer(self, peer: str, message: Heads) -> Iterator[Effect]:
        """Send a peer some of what it lacks."""
        unknown = (0, "") if message.complete else None
        sent = size = 0
        # In another order each time, so that every log has its turn.
        for key, log in self._random.sample(list(self.logs.items()), len(self.logs)):
            head = message.heads.get(key.text, unknown)
            number = head[0] if isinstance(head, (list, tuple)) and head else None
            if not isinstance(number, int) or number >= log.number or not self._may_have(key, peer):
                continue
            batch = _batch(log.after(number))
            size += sum(bytes_of(entry) for entry in batch.entries)
            if sent >= _ANSWERS_MAX or (sent and size > _OFFERED_BYTES_MAX):
                return
            sent += 1
            yield Send(peer, batch)

    def _on_want(self, message: Want, peer: str) -> Iterator[Effect]:
        key = LogKey.parse(message.log)
        log = self.logs.get(key)
        if log is not None and self._may_have(key, peer) and log.after(message.after):
            yield Send(peer, _batch(log.after(message.after)))

    def _on_entries(self, message: Entries, peer: str, alive: Sequence[str]) -> Iterator[Effect]:
        added: dict[LogKey, list[Statement]] = {}
        for entry in message.entries:
            try:
                key, effects = self._accept(entry, peer)
            except (SennitError, LookupError, TypeError, ValueError):
                break  # what follows in its log cannot be accepted either
            if effects is None:
                continue
            yield from effects
            if self.logs[key].digest == entry.digest:
                added.setdefault(key, []).append(entry)
                continue
            # The proof of a fork: others are to see it, but it is no part of the log.
            for other in self._chosen(key, alive, without=peer):
                yield Send(other, Entries((entry,)))
        for key, entries in added.items():
            log = self.logs[key]
            yield StoreLog(key, tuple(entries), log.first)
            for other in self._chosen(key, alive, without=peer):
                yield Send(other, Entries(tuple(entries)))
            # There may be more than one message holds.
            yield Send(peer, Want(key.text, log.number))

    def _accept(self, entry: Statement, peer: str) -> tuple[LogKey, list[Effect] | None]:
        """Add an entry to its log; return the effects, None if it is not new.

        Raises:
            Denied: It is not the publisher's, or not for this node.
            BadInput: It is not the next one.
        """
        key = LogKey(str(entry.body["publisher"]), str(entry.body["audience"]))
        if not self._may_have(key, peer) or not self._is_member(key.publisher):
            raise Denied(f"accepting a publication of node {key.publisher[:16]}")
        number = entry.body["number"]
        log = self._log(key)
        if not isinstance(number, int) or number < 1:
            raise BadInput("a publication", reason="it has no number")
        if number <= log.number:
            known = log.at(number)
            if known is None or known.digest == entry.digest:
                return key, None
            self._signer.read(entry, self._wall())
            return key, self._forked(key, log, number)
        body = self._signer.read(entry, self._wall())
        is_next = (number, body["previous"]) == (log.number + 1, log.digest)
        starts_anew = "items" in body and body["part"] == 0
        if not starts_anew and log.size + bytes_of(entry) > LOG_BYTES_MAX:
            raise BadInput("a publication", reason=f"its log has more than {LOG_BYTES_MAX} bytes")
        if not starts_anew and (log.forked or not is_next):
            if key.publisher == self._node:
                # This node has signed it, and lost it: it was restored from a backup.
                log.lost_number = max(log.lost_number, number)
                return key, self._forked(key, log, number)
            raise BadInput("a publication", reason="it is not the next one of its log")
        before = dict(log.items)
        log.add(body, entry)
        changed = [
            each for each in {**before, **log.items} if before.get(each) != log.items.get(each)
        ]
        return key, [Published(key, dataset, log.items.get(dataset)) for dataset in changed]

    def _forked(self, key: LogKey, log: StoredLog, number: int) -> list[Effect] | None:
        if log.forked:
            return None
        log.forked = True
        self.forked.add(key.publisher)
        return [LogForked(key, number)]

    def _must_renew(self, log: StoredLog) -> bool:
        """Return whether this node is to repeat the state of one of its logs.

        Others accept a checkpoint after any entry that they had before, so it ends a fork, and follows
        entries that this node has lost. It also replaces entries before they expire, and those of a clock
        that was wrong.
        """
        if not log.entries:
            return log.lost_number > 0
        now = self._wall()
        is_old = now - log.entries[0].issued_at > ENTRY_SECONDS / 2
        # Any of them: the clock may have been wrong for some hours only.
        is_early = any(each.issued_at > now + CLOCK_SKEW_SECONDS for each in log.entries)
        return log.forked or log.lost_number > log.number or is_old or is_early

    def _may_have(self, key: LogKey, peer: str) -> bool:
        """Return whether a log may be exchanged with a peer."""
        if key.audience == EVERYONE:
            return True
        return {key.publisher, key.audience} == {self._node, peer} or (
            key.publisher == key.audience == self._node == peer
        )

    def _chosen(self, key: LogKey, alive: Sequence[str], *, without: str) -> list[str]:
        """Return the peers to which new entries of a log are pushed."""
        if key.audience != EVERYONE:
            return [key.audience] if key.audience in alive and key.publisher == self._node else []
        others = [node for node in alive if node not in (without, key.publisher)]
        return self._random.sample(others, min(self._options.fanout, len(others)))

    def _heads_for(self, peer: str) -> Heads:
        seen = [(key, log) for key, log in self.logs.items() if self._may_have(key, peer)]
        complete = len(seen) <= _HEADS_MAX
        if not complete:
            seen = self._random.sample(seen, _HEADS_MAX)
        return Heads({key.text: [log.number, log.digest] for key, log in seen}, complete)

    def _log(self, key: LogKey) -> StoredLog:
        return self.logs.setdefault(key, StoredLog())


def _batch(entries: Sequence[Statement]) -> Entries:
    """Return as many entries as a message holds, at least one."""
    chosen: list[Statement] = []
    size = 0
    for entry in entries:
        size += bytes_of(entry)
        if chosen and size > _ENTRIES_BYTES_MAX:
            break
        chosen.append(entry)
    return Entries(tuple(chosen))
