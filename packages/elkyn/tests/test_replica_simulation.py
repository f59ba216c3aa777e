"""Leader, followers and the wires between them, played step by step from a seed."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ormsgpack
import pytest

from elkyn import ElkynStore
from elkyn.errors import Diverged, NotLeader, PositionGone
from elkyn.replication.follower import Receiver
from elkyn.replication.leader import Sender
from elkyn.replication.messages import VERSION, WINDOW, ProtocolError, decode, encode
from elkyn.replication.snapshots import make_snapshot
from elkyn.replication.store_adapters import FollowerStore, LeaderStore
from elkyn.storage.terms import Terms


class Piece:
    """A snapshot of a played node."""

    def __init__(self, node: Node) -> None:
        self.position = len(node.entries)
        self._data = ormsgpack.packb([node.entries, node.terms.pack()])
        self.size_bytes = len(self._data)
        self.sha256 = ""
        self._at = 0

    def read(self, count: int) -> bytes:
        count = min(count, 40)
        self._at += count
        return self._data[self._at - count : self._at]

    def close(self) -> None:
        pass


class Node:
    """A store as both sides see it; `entries` is on its disk, the rest ends with a crash."""

    fresh = False

    def __init__(self, node: str, world: World) -> None:
        self.node = node
        self.world = world
        self.entries: list[list[Any]] = []
        self.first = 1
        self.stored_terms = Terms()
        self.follows: Node | None = None
        self.set_aside: list[list[Any]] = []
        self.synced = False
        self._arrived: list[bytes] | None = None

    @property
    def terms(self) -> Terms:
        if self.follows is None:
            self.stored_terms = self.stored_terms.named()
        return self.stored_terms

    @property
    def leads(self) -> bool:
        return self.follows is None and not self.stored_terms.stale

    @property
    def last(self) -> int:
        return len(self.entries)

    position = last

    def mark(self, position: int) -> list[Any] | None:
        there = self.first <= position <= self.last
        return [*self.entries[position - 1][:2], None] if there else None

    def covers(self, after: int) -> bool:
        return self.first <= after + 1 <= self.last + 1

    def rows(self, after: int, bytes_max: int) -> list[tuple[int, bytes]]:
        if not self.covers(after):
            raise PositionGone(after, self.first, self.last)
        some = self.entries[after : after + 3]
        return [(after + 1 + i, ormsgpack.packb(entry)) for i, entry in enumerate(some)]

    def observe_term(self, term: int) -> None:
        self.stored_terms = self.stored_terms.observe_term(term)

    def acked(self, node: str, position: int) -> None:
        self.world.acked(self, node, position)

    def set_diverged(self, *, diverged: bool) -> None:
        self.diverged = diverged

    def caught_up(self) -> None:
        self.synced = True

    def keep_terms(self, terms: Terms) -> None:
        self.stored_terms = terms

    def append(self, rows: Sequence[tuple[int, bytes]]) -> None:
        for position, row in rows:
            assert position == len(self.entries) + 1
            self.entries.append(ormsgpack.unpackb(row))

    def begin_snapshot(self) -> None:
        self._arrived = []

    def add_chunk(self, piece: bytes) -> None:
        assert self._arrived is not None
        self._arrived.append(piece)

    def install(self, size_bytes: int, sha256: str, *, aside: bool) -> None:
        assert self._arrived is not None
        entries, terms = ormsgpack.unpackb(b"".join(self._arrived))
        if aside:
            self.set_aside += self.entries
        else:
            assert entries[: len(self.entries)] == self.entries
        self.entries, self.stored_terms, self.first = (
            entries,
            Terms.unpack(terms),
            len(entries) or 1,
        )
        self._arrived = None

    def write(self) -> None:
        self.world.written += 1
        self.entries.append([self.terms.term, self.world.written, f"value {self.world.written}"])


class Wire:
    """One connection; each end may live on after the other is gone."""

    def __init__(self, leader: Node, follower: Node) -> None:
        self.leader, self.follower = leader, follower
        self.sender: Sender | None = Sender(leader)
        self.receiver: Receiver | None = Receiver(follower)
        self.up: deque[bytes] = deque([self.receiver.hello()])
        self.down: deque[bytes] = deque()

    def step(self, choice: random.Random) -> None:
        sender, receiver = self.sender, self.receiver
        what = choice.random()
        if what < 0.4 and self.up and sender is not None:
            self.down.extend(sender.receive(self.up.popleft()))
        elif what < 0.8 and self.down and receiver is not None:
            try:
                answer = receiver.receive(self.down.popleft())
            except NotLeader:
                self.receiver = None
            else:
                if answer is not None:
                    self.up.append(answer)
        elif sender is not None:
            if sender.needs_snapshot and sender.following:
                sender.offer(Piece(self.leader))
            frame = sender.next() if what < 0.97 else sender.beat()
            if frame is not None:
                self.down.append(frame)
            assert sender.in_flight <= WINDOW


class World:
    """A leader, followers, wires, and what every leader has written."""

    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed)
        self.written = 0
        self.nodes = [Node(name, self) for name in "abc"]
        self.leader = self.nodes[0]
        self.promised: dict[int, set[str]] = {}
        self.wires: list[Wire] = []
        self.histories: dict[str, list[Any]] = {}
        for node in self.nodes[1:]:
            node.follows = self.leader

    def acked(self, leader: Node, node: str, position: int) -> None:
        assert not leader.stored_terms.stale
        if leader is not self.leader:  # it does not know yet: what it promises now can be lost
            return
        for entry in leader.entries[:position]:
            self.promised.setdefault(entry[1], set()).add(node)

    def step(self) -> None:
        choice = self.choice
        what = choice.random()
        if what < 0.15:
            leaders = [node for node in self.nodes if node.leads]
            choice.choice(leaders).write()
        elif what < 0.24:
            node = choice.choice([node for node in self.nodes if node.follows is not None])
            if not self._connected(node):
                assert node.follows is not None
                self.wires.append(Wire(node.follows, node))
        elif what < 0.28 and self.wires:
            self._break(choice.choice(self.wires))
        elif what < 0.30:
            self._crash(choice.choice(self.nodes))
        elif what < 0.32:
            node = choice.choice(self.nodes)
            node.first = choice.randint(node.first, max(node.first, node.last))
        elif what < 0.325:
            self._promote()
        elif self.wires:
            choice.choice(self.wires).step(choice)
        self.check()

    def _connected(self, node: Node) -> bool:
        return any(w.follower is node and w.receiver is not None for w in self.wires)

    def _break(self, wire: Wire) -> None:
        if self.choice.random() < 0.5:
            wire.receiver = None  # what is on its way still reaches the leader
        else:
            self.wires.remove(wire)

    def _crash(self, node: Node) -> None:
        self.wires = [w for w in self.wires if node not in (w.leader, w.follower)]

    def _promote(self) -> None:
        followers = [n for n in self.nodes if n.follows is self.leader and n.stored_terms.leads]
        if not followers:
            return
        best = max(followers, key=lambda node: node.position)
        kept = {number for number, by in self.promised.items() if best.node in by}
        old, self.leader = self.leader, best
        for wire in self.wires:
            if wire.follower is best:
                wire.receiver = None
        observe_term = best.stored_terms.observe_term(
            old.stored_terms.term
        )  # it may have been away since
        best.stored_terms = observe_term.promoted(best.position)
        best.follows = None
        assert kept <= {entry[1] for entry in best.entries}
        self.promised = {number: {best.node} for number in kept}
        for node in self.nodes:
            if node is not best and (node is not old or self.choice.random() < 0.5):
                node.follows = best
                self._break_all(node)
        if old.follows is None:
            self.wires.append(Wire(old, best))  # the new leader notifies the old one

    def _break_all(self, node: Node) -> None:
        for wire in self.wires:
            if wire.follower is node:
                wire.receiver = None
            if wire.leader is node:
                wire.sender = None

    def check(self) -> None:
        for node in self.nodes:
            if node.follows is None:
                self.histories[node.terms.leads[-1].id] = list(node.entries)
        for node in self.nodes:
            leads = node.stored_terms.until(node.position)
            if node.follows is None or not leads or leads[-1].id not in self.histories:
                continue
            history = self.histories[leads[-1].id]
            assert node.entries == history[: len(node.entries)]

    def settle(self) -> None:
        for node in self.nodes:
            if node is not self.leader:
                node.follows = self.leader
        self.wires = [Wire(self.leader, node) for node in self.nodes if node is not self.leader]
        for _round in range(20_000):
            self.choice.choice(self.wires).step(self.choice)
        for node in self.nodes:
            assert node.entries == self.leader.entries, node.node
        assert self.promised.keys() <= {entry[1] for entry in self.leader.entries}


@pytest.mark.sample(15)
@pytest.mark.parametrize("seed", range(60))
def test_followers_hold_a_beginning_of_their_leaders_history(seed: int) -> None:
    world = World(seed)
    for _step in range(600):
        world.step()
    world.settle()


def _pump(leader: LeaderStore, follower: FollowerStore, frames: int) -> Receiver:
    """Let both sides talk for a number of frames of the leader."""
    sender, receiver = Sender(leader), Receiver(follower)
    for answer in sender.receive(receiver.hello()):
        receiver.receive(answer)
    for _frame in range(frames):
        if sender.needs_snapshot:
            sender.offer(make_snapshot(leader.store, leader.paths))
        frame = sender.next()
        if frame is None:
            break
        answered = receiver.receive(frame)
        assert answered is not None
        sender.receive(answered)
    sender.close()
    return receiver


@pytest.mark.sample(2)
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_stores_that_are_reopened_follow_through_trims_and_promotions(
    tmp_path: Path, seed: int
) -> None:
    choice = random.Random(seed)
    options: Any = {"oplog_bytes_max": 64 * 1024, "durability": "none"}
    names = ["a", "b"]
    stores = {name: ElkynStore(tmp_path / name, **options) for name in names}
    leader, follower = names
    for step in range(40):
        store = stores[leader]
        what = choice.random()
        if what < 0.5:
            for _write in range(choice.randint(1, 8)):
                text = chr(97 + step % 26) * choice.choice([5, 20_000, 400_000])
                store.set(f"/n/{choice.randrange(9)}/{choice.randrange(3)}", text)
        elif what < 0.8:
            log = FollowerStore(stores[follower])
            _pump(LeaderStore(store), log, choice.randint(1, 40))
            log.close()
        elif what < 0.9:
            name = choice.choice(names)
            stores[name].close()
            stores[name] = ElkynStore(tmp_path / name, **options)
        elif stores[follower].admin.terms.leads:
            stores[follower].admin.change_terms(lambda terms, position: terms.promoted(position))
            stores[follower].admin.following = False
            leader, follower = follower, leader
            if choice.random() < 0.5 and not stores[follower].admin.terms.stale:
                stores[follower].set("/lost", step)  # it has not observe_term of it yet
    log = FollowerStore(stores[follower])
    _pump(LeaderStore(stores[leader]), log, 10_000)
    assert stores[follower].get("/") == stores[leader].get("/")
    assert stores[follower].admin.verify() == []
    assert stores[follower].position == stores[leader].position
    for store in stores.values():
        store.close()


def test_a_diverged_store_is_set_aside_once_and_whole(tmp_path: Path) -> None:
    leader = ElkynStore(tmp_path / "leader")
    other = ElkynStore(tmp_path / "other")
    leader.set("/from", "leader")
    other.set("/from", "other")
    other.set_rules({"rules": {".read": True}})
    seen = other.watch("/from")
    assert next(seen).data == "other"
    log = FollowerStore(other)
    with pytest.raises(NotLeader):
        other.set("/from", "rejected")
    _pump(LeaderStore(leader), log, 0)  # cut off before the snapshot
    _pump(LeaderStore(leader), log, 1)  # and in the midst of it
    for read in (other.get, other.keys, other.query, other.watch):
        with pytest.raises(Diverged):
            read("/from")
    with pytest.raises(Diverged):
        other.on("/from", "value", print)
    _pump(LeaderStore(leader), log, 100)
    assert (other.get("/from"), other.rules, next(seen).data) == ("leader", None, "leader")
    leader.set_rules({"rules": {"from": {".write": True}}})
    leader.set("/from", "leader again")
    _pump(LeaderStore(leader), log, 100)
    assert other.rules is not None
    assert next(seen).data == "leader again"
    log.close()
    other.close()
    (aside,) = (tmp_path / "other" / "set-aside").iterdir()
    with ElkynStore(aside) as store:
        assert store.get("/from") == "other"
        assert store.rules is not None
    leader.close()


def test_a_leader_restored_from_a_backup_is_no_continuation(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "leader") as leader, ElkynStore(tmp_path / "b") as follower:
        log = FollowerStore(follower)
        leader.set("/n", 0)
        _pump(LeaderStore(leader), log, 100)
        leader.admin.backup(tmp_path / "backup")
        for number in range(3):
            leader.set("/n", number)
        _pump(LeaderStore(leader), log, 100)
        with ElkynStore(tmp_path / "backup") as restored:
            for number in range(7):
                restored.set("/n", f"other {number}")
            _pump(LeaderStore(restored), log, 100)
            assert follower.get("/n") == "other 6"
            assert len(list((tmp_path / "b" / "set-aside").iterdir())) == 1


def test_nonsense_is_refused_on_both_sides() -> None:
    with ElkynStore(mode="memory") as store:
        for frame in (
            b"",
            b"\xff",
            encode("ack", 1, 1, 1),
            encode("hello", VERSION, {}),
            encode("hello", VERSION, None),
            encode("entries", 1, 2, 3, b"", 4),
        ):
            with pytest.raises(ProtocolError):
                Sender(LeaderStore(store)).receive(frame)
        other = Sender(LeaderStore(store)).receive(encode("hello", 99, {}))
        assert decode(other[0])[:2] == ["refuse", "version"]
    with ElkynStore(mode="memory") as store:
        for frame in (
            b"",
            encode("beat", 1, 1),
            encode("welcome", 99, {}),
            encode("welcome", VERSION, {}),
            encode("welcome", VERSION, None),
            encode("ack", 1, 1, 1),
        ):
            with pytest.raises(ProtocolError):
                Receiver(FollowerStore(store)).receive(frame)


def test_a_follower_to_be_replaced_is_behind_until_it_was(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "l") as leader, ElkynStore(tmp_path / "f") as other:
        leader.set("/n", "leader")
        for number in range(5):  # further on, in a history of its own
            other.set("/n", number)
        log = FollowerStore(other, ())
        other.admin.following = True
        assert _pump(LeaderStore(leader), log, 1).replacing
        done = _pump(LeaderStore(leader), log, 100)
        assert (done.replacing, other.get("/n")) == (False, "leader")
        log.close()
