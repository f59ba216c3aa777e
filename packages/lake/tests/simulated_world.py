"""A simulated network with everything that may go wrong in it, and what must hold all the same.

- No wrong answer: a query returns the sum of the version that it names, or is refused.
- No replicated write is lost: a version whose writer has reported all copies stays readable while fewer
  nodes fail than it has copies.
- A node's view of a dataset never goes back.
- An append that was queued is made once.
- A node that was revoked has no effect on those that know that, and gets no data of them.
- Never do two nodes write one dataset, and the next writer has every version of the one before.
- When faults end, all nodes agree, every shard has its copies, and every query is answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lake.catalog.node_key import NodeKey
from lake.peers.handovers.rows import ACCEPTING, SIGNED, HandOverRow
from lake.peers.handovers.steps import commits
from lake.peers.members.statuses import NodeStatus
from lake.peers.sharing.sharing import read_shared
from lake.peers.transport.signed import Statement
from lake.testing.simulation import Disk, Faults, Simulation

from .peers_gossip import WALL
from .simulated_data import GossipSigner, StoredObject, Version, described, manifest_of
from .simulated_hand_overs import UNDER_WAY, key_of
from .simulated_liar import Liar
from .simulated_node import CODEC, SimulatedNode
from .simulated_revoked import Revoked
from .simulated_roster import ADMINS, Revocations

DATASETS = ("0" * 25 + "1", "0" * 25 + "2")
NODES_MAX = 16
HEAL_SECONDS = 150.0
QUERY_SECONDS = 40.0
RECOVERY_SECONDS = 15.0
"""After which a failed copy is found by a scrub, and no confirmation of it counts any more."""
PROBES_MAX, RUMORS_MAX, FRAMES_MAX = 100, 400, 4000
_CLOCK_SECONDS = 140.0
"""Of two nodes, twice this is still below what statements allow."""


class BrokenPromise(AssertionError):
    """The network has done what it must not."""


@dataclass(frozen=True, slots=True)
class Size:
    """The form of a network.

    Args:
        nodes: Their number.
        factor: Copies of each shard.
        zones: Zones over which nodes are spread; 0 for none.
        liars: Nodes that are malicious.
        revokes: Whether nodes may be revoked.
    """

    nodes: int
    factor: int
    zones: int = 0
    liars: int = 0
    revokes: bool = False


class World:
    """A network, its history, and what it has promised.

    Args:
        seed: Decides everything.
        size: Its form.
        make: The class of nodes; tests give one with a fault of its own.
    """

    def __init__(self, seed: int, size: Size, make: type[SimulatedNode] = SimulatedNode) -> None:
        self.revocations = Revocations(self)
        self.simulation = Simulation(seed, CODEC, connected=self.revocations.is_connected)
        self.random = self.simulation.random
        self.size = size
        self.names: list[str] = []
        self.zones: dict[str, str] = {}
        self.liars: set[str] = set()
        self.contents: dict[str, StoredObject] = {}
        # Every version that a writer has committed, by dataset and number.
        self.history: dict[tuple[str, int], Version] = {}
        self.forked: list[tuple[str, str]] = []
        self.answered_count = self.refused_count = self.wanted_answers = 0
        # The newest version of each dataset all of whose copies were reported.
        self.promised: dict[str, Version] = {}
        # Nodes that have failed since all shards had all copies.
        self.failed: set[str] = set()
        self._failed_at = 0.0
        self.gone: set[str] = set()
        self.keys: dict[str, NodeKey] = {}
        # All nodes that have written a dataset: one from a backup would write it again.
        self.writers: set[str] = set()
        self.taken_count = 0
        # The appends that were queued, and those that writers have made.
        self.queued: list[str] = []
        self.made: list[str] = []
        self._make = make
        self._heads: dict[tuple[str, str], int] = {}
        self._skews: dict[str, float] = {}
        self._backups: dict[str, Disk] = {}
        self._crash_after: dict[str, int] = {}
        # Those that were revoked, and continue.
        self._stubborn: set[str] = set()
        self._number = self._append_number = 0
        for _ in range(size.nodes):
            self.join()
        # The last ones, so that writers are honest.
        for name in self.names[size.nodes - size.liars :]:
            self.liars.add(name)
            self.simulation.crash(name)
            self.simulation.restart(name)
        self.failed |= self.liars
        # Which node writes each dataset, as seen by all nodes at once.
        self.datasets = dict(zip(DATASETS, self.names, strict=False))
        self.writers |= set(self.datasets.values())
        for dataset in self.datasets:
            self.write(dataset)

    # What nodes ask of it

    def wall(self, name: str) -> float:
        return WALL + self.simulation.now + self._skews.get(name, 0.0)

    def known_nodes(self, name: str) -> list[Statement]:
        """Return the statuses that an invite tells a node: of some that are up."""
        up = [each for each in self.names if each != name and self.is_up(each)][:3]
        return [GossipSigner(each).sign_status(NodeStatus(each, 0), WALL) for each in up]

    def is_intact(self, stored: StoredObject) -> bool:
        return stored is self.contents[stored.name]

    def check(self, condition: bool, promise: str) -> None:
        if not condition:
            raise BrokenPromise(f"{promise}, after {self.simulation.now:.2f} seconds")

    def adopts(self, name: str, version: Version) -> None:
        known = self.history.get((version.dataset, version.number))
        self.check(known == version, f"{name[:8]} adopted a version that nobody wrote")
        newest = self._heads.get((name, version.dataset), 0)
        self.check(version.number >= newest, f"{name[:8]} went back from version {newest}")
        self._heads[name, version.dataset] = version.number

    def answered(
        self, name: str, version: Version, parts: Iterable[tuple[int, int]], missing: int
    ) -> None:
        if missing:
            self.refused_count += 1
            return
        self.answered_count += 1
        counted = list(parts)
        found = sum(n for n, _ in counted), sum(total for _, total in counted)
        shards = [self.contents[shard] for shard, _ in version.shards]
        wanted = len(shards), sum(each.total for each in shards)
        self.check(found == wanted, f"{name[:8]} answered {found}, not {wanted}")

    def crashes_now(self, name: str) -> bool:
        """Return whether a node is down, or goes down between two of its effects."""
        if name in self._crash_after:
            self._crash_after[name] -= 1
            if self._crash_after[name] < 0:
                del self._crash_after[name]
                self.simulation.crash(name)
        return not self.is_up(name)

    # What happens to it

    def is_up(self, name: str) -> bool:
        return self.simulation._nodes[name].process is not None

    def node(self, name: str) -> SimulatedNode:
        found: SimulatedNode = self.simulation.process(name)
        return found

    def honest(self) -> list[SimulatedNode]:
        """Return the running members that are not malicious."""
        return [node for node in self.running() if self.is_honest(node.name)]

    def running(self) -> Iterator[SimulatedNode]:
        """Yield the running nodes."""
        return map(self.node, self.simulation.running())

    def is_honest(self, name: str) -> bool:
        """Return whether a node is a member that is not malicious."""
        return name not in self.liars and name not in self.revocations.statements

    def join(self) -> None:
        """Add a node, unless there are enough."""
        if len(self.names) == NODES_MAX:
            return
        key = key_of(self._number)
        name = key.id
        self.keys[name] = key
        self._number += 1
        self.names.append(name)
        self.zones[name] = f"zone{self._number % self.size.zones}" if self.size.zones else ""
        self.revocations.admit(self._number - 1)
        self.simulation.add(name, partial(self._start, name))

    def _start(self, name: str, disk: Disk) -> SimulatedNode:
        if name in self._stubborn:
            return Revoked(self, name, disk)
        return (Liar if name in self.liars else self._make)(self, name, disk)

    def write(self, dataset: str, *, merge: bool = False) -> None:
        """Commit a version at the writer: with one shard more, or with two merged into one."""
        for node in self.honest():
            is_first = node.name == self.datasets[dataset] and node.head(dataset) is None
            if is_first or node.hand_overs.writes(dataset):
                self._commit(dataset, node, merge=merge)

    def _commit(self, dataset: str, node: SimulatedNode, *, merge: bool) -> None:
        writer, head = node.name, node.head(dataset)
        number, shards = (head.number + 1, head.shards) if head else (1, ())
        rest = shards[2:] if merge else shards
        total = sum(self.contents[name].total for name, _ in shards[:2]) if merge else None
        data = self._shard(f"{dataset}/{number}", total)
        manifest = manifest_of(dataset, number, (*rest, (data.name, len(data.data))))
        for each in (data, manifest):
            self.contents[each.name] = node.objects[each.name] = each
        version = Version(dataset, number, manifest.name, (*rest, (data.name, len(data.data))))
        self.check((dataset, number) not in self.history, f"two nodes wrote version {number}")
        self.history[dataset, number] = version
        self._heads[writer, dataset] = number
        item = described(version, self.size.factor)
        node.commit(version, read_shared(item, dataset), writer)

    def _shard(self, label: str, total: int | None) -> StoredObject:
        value = self.random.randrange(10**9) if total is None else total
        text = label.encode() * self.random.randrange(1, 12)
        return StoredObject.of(text + value.to_bytes(8, "big"))

    def offer(self, number: int, dataset: str) -> None:
        """Offer a dataset to a node, if its writer runs and that node is not malicious."""
        taker = self.names[number % len(self.names)]
        for node in self.honest():
            if taker not in {node.name, *self.liars} and node.hand_overs.writes(dataset):
                node.hand_overs.offer(dataset, taker)

    def accept(self, number: int, dataset: str) -> None:
        """Let a node accept a dataset, whether or not it is offered to it."""
        name = self.names[number % len(self.names)]
        if self.is_up(name) and name not in self.liars:
            self.node(name).hand_overs.accept(dataset)

    def undo(self, number: int, dataset: str) -> None:
        """Let a node end a hand-over, if it has one."""
        name = self.names[number % len(self.names)]
        if self.is_up(name) and name not in self.liars:
            self.node(name).hand_overs.undo(dataset)

    def taken(self, name: str, version: Version) -> None:
        """Note that a node writes a dataset from now on."""
        dataset = version.dataset
        newest = max(number for known, number in self.history if known == dataset)
        self.check(version.number == newest, f"{name[:8]} writes on without version {newest}")
        lacking = [n for n, _ in version.shards if n not in self.node(name).objects]
        self.check(not lacking, f"{name[:8]} writes on without {len(lacking)} shards")
        self.datasets[dataset] = name
        self.writers.add(name)
        self.taken_count += 1

    def _rows(self, name: str) -> Mapping[str, HandOverRow]:
        """Return the hand-overs of a node, running or not."""
        found: Mapping[str, HandOverRow] = self.simulation._nodes[name].disk.get("handovers", {})
        return found

    def _check_writers(self) -> None:
        """Check that of all disks at most one is that of a writer, for each dataset."""
        for dataset in self.datasets:
            found = []
            for name in self.names:
                known = self.simulation._nodes[name].disk.get("shared", {}).get(dataset)
                row = self._rows(name).get(dataset)
                is_own = known is not None and known[0] == name
                if is_own and (row is None or commits(row)) and name not in self.liars:
                    found.append(name[:8])
            self.check(len(found) <= 1, f"{found} all write {dataset}")

    def _hand_overs_under_way(self) -> str:
        for name in self.names:
            for dataset, row in self._rows(name).items():
                if row.state not in UNDER_WAY or {name, row.peer} & (self.gone | self.liars):
                    continue
                known = self.simulation._nodes[name].disk["versions"].get(dataset, ())
                if row.state != ACCEPTING or all(map(self._is_whole, known)):
                    return f"{name[:8]} has a hand-over of {dataset} that is {row.state}"
        return ""

    def merge(self, dataset: str) -> None:
        self.write(dataset, merge=True)

    def query(self, number: int, dataset: str) -> None:
        """Query a dataset at a node, if it runs."""
        name = self.names[number % len(self.names)]
        if self.is_up(name) and self.is_honest(name) and name not in self.simulation._frozen:
            node = self.node(name)
            self.simulation.perform(name, node.queries.start(dataset, self.simulation.clock(name)))

    def append(self, number: int, dataset: str) -> None:
        """Queue an append at a node that does not write the dataset."""
        name, writer = self.names[number % len(self.names)], self.datasets[dataset]
        if self.is_up(name) and name not in {writer, *self.liars}:
            # Also one that a crash leaves stored, but not acknowledged, has an id of its own.
            self._append_number += 1
            append = f"{self._append_number:026d}"
            if self.node(name).appends.add(append, dataset, writer, self.wall(name)):
                self.queued.append(append)

    def can_reach(self, name: str, other: str) -> bool:
        """Return whether a node gets a connection to another one."""
        return self.is_up(other) and self.simulation._can_reach(name, other)

    def faults(self, changes: Mapping[str, Any]) -> None:
        self.simulation.faults = replace(self.simulation.faults, **changes)

    def partition(self, numbers: Iterable[int]) -> None:
        side = {self.names[number % len(self.names)] for number in numbers}
        self.simulation.partition(side, [name for name in self.names if name not in side])

    def reunite(self) -> None:
        self.simulation.partition()

    def crash(self, number: int, effects: int = 0) -> None:
        """Crash a node after so many of its effects; its disk stays."""
        name = self.names[number % len(self.names)]
        if self.is_up(name):
            self._crash_after[name] = effects

    def restart(self, number: int) -> None:
        name = self.names[number % len(self.names)]
        self._crash_after.pop(name, None)
        if name not in self.gone and not self.is_up(name):
            self.simulation.restart(name)

    def lose(self, number: int) -> None:
        """Lose a node and its disk for ever, if as many copies remain as are promised to suffice."""
        name = self.names[number % len(self.names)]
        if not self._may_fail(name) or len(self.gone) > len(self.names) - self.size.factor - 2:
            return
        if self.is_up(name):
            self.simulation.crash(name)
        self.gone.add(name)

    def revoke(self, number: int, admin: int, then: str) -> None:
        """Let an admin revoke a node that writes nothing, as another one may be lost.

        It then "obeys", as the product does, or "continues" as a malicious one.
        """
        name, by = self.names[number % len(self.names)], self.names[admin % ADMINS]
        is_able = self.is_up(by) and by not in self.simulation._frozen
        revoked = self.revocations.statements.keys()
        if not is_able or name in {*self.names[:ADMINS], *self.writers, *revoked}:
            return
        if len(self.names) - len(revoked) < self.size.factor + 3 or not self._may_fail(name):
            return
        node = self.node(by)
        self.simulation.perform(by, node.revoke(name, self.simulation.clock(by)))
        if then == "continues" and self.is_up(name):
            self.simulation.crash(name)
            self._stubborn.add(name)
            self.simulation.restart(name)

    def _may_fail(self, name: str) -> bool:
        # A copy that counts may be about to be dropped, for the sake of one that has failed.
        is_over = self.simulation.now - self._failed_at > RECOVERY_SECONDS
        newest = [self._newest(each) for each in self.datasets]
        if is_over and self.is_safe() and all(map(self._is_whole, newest)):
            self.failed = set(self.liars)
        if name in self.gone or not self.is_honest(name):
            return False
        if len(self.failed | {name}) >= self.size.factor:
            return False
        self.failed.add(name)
        self._failed_at = self.simulation.now
        return True

    def freeze(self, number: int) -> None:
        self.simulation.freeze(self.names[number % len(self.names)])

    def thaw(self, number: int) -> None:
        self.simulation.thaw(self.names[number % len(self.names)])

    def skew(self, number: int, share: float) -> None:
        """Set the wall clock of a node to another time."""
        self._skews[self.names[number % len(self.names)]] = share * _CLOCK_SECONDS

    def damage(self, number: int, choice: int) -> None:
        """Flip a bit of a shard on a node's disk."""
        name = self.names[number % len(self.names)]
        if not self.is_up(name) or not self._may_fail(name):
            return
        objects = self.node(name).objects
        manifests = {version.manifest for version in self.history.values()}
        if shards := sorted(objects.keys() - manifests):
            chosen = shards[choice % len(shards)]
            objects[chosen] = replace(objects[chosen], data=b"x" + objects[chosen].data[1:])

    def back_up(self, number: int) -> None:
        name = self.names[number % len(self.names)]
        if self.is_up(name):
            disk = self.node(name).disk
            self._backups[name] = {key: _copy(value) for key, value in disk.items()}

    def restore(self, number: int) -> None:
        """Start a node from its backup; no writer, whose own newer versions would be lost."""
        name = self.names[number % len(self.names)]
        if name not in self._backups or name in self.writers or not self._may_fail(name):
            return
        if self.is_up(name):
            self.simulation.crash(name)
        disk = {key: _copy(value) for key, value in self._backups[name].items()}
        self.simulation._nodes[name].disk = disk
        self.revocations.forget(name)
        for dataset in self.datasets:
            self._heads.pop((name, dataset), None)
        self.simulation.restart(name)

    # What must hold

    def watch(self) -> None:
        """Check what must hold all the time, and note what writers report."""
        self.check(len(set(self.made)) == len(self.made), "an append was made twice")
        self._check_writers()
        self.revocations.watch()
        for dataset, writer in self.datasets.items():
            promised = self.promised.get(dataset)
            is_kept = promised is None or any(map(self._is_whole, self._since(promised)))
            self.check(is_kept, f"a replicated version of {dataset} was lost")
            if self.is_up(writer):
                node = self.node(writer)
                if dataset in node.versions and not node.copies_of(dataset).under_replicated:
                    self.promised[dataset] = node.versions[dataset][-1]

    def _since(self, promised: Version) -> Iterator[Version]:
        """Yield a version and all later ones, each of which has its rows."""
        number = promised.number
        while (version := self.history.get((promised.dataset, number))) is not None:
            yield version
            number += 1

    def _is_whole(self, version: Version | None) -> bool:
        return version is not None and all(self.disks_with(name) for name, _ in version.shards)

    def disks_with(self, shard: str) -> list[str]:
        """Return the honest nodes, running or not, whose disks have an intact copy of a shard."""
        found = []
        for name in self.names:
            copy = self.simulation._nodes[name].disk["objects"].get(shard)
            is_there = copy is not None and self.is_intact(copy)
            if is_there and name not in self.gone and self.is_honest(name):
                found.append(name)
        return found

    def _is_orphaned(self, dataset: str) -> bool:
        """Return whether a writer is lost with a version that no other node has.

        Nodes that lacked the version before it too cannot get that: the log names the newest one.
        """
        newest = self._newest(dataset)
        number = 0 if newest is None else newest.number
        return self.datasets[dataset] in self.gone and (dataset, number + 1) in self.history

    def is_safe(self) -> bool:
        """Return whether every shard that was not lost has its copies on honest disks."""
        usable = sum(self.is_honest(name) for name in self.names) - len(self.gone)
        least = min(self.size.factor - len(self.liars), usable)
        whole = [dataset for dataset in self.datasets if not self._is_orphaned(dataset)]
        heads = [v for v in map(self._newest, whole) if v is not None]
        counts = [len(self.disks_with(name)) for head in heads for name, _ in head.shards]
        return all(count >= least or count == 0 for count in counts)

    def _newest(self, dataset: str) -> Version | None:
        found = [v for node in self.honest() if (v := node.head(dataset)) is not None]
        return max(found, key=lambda version: version.number, default=None)

    def heal(self) -> None:
        """End all faults, and start all nodes that can start."""
        self.reunite()
        self.simulation.faults = Faults()
        self._skews.clear()
        for number, name in enumerate(self.names):
            self.simulation.thaw(name)
            self.restart(number)
        for name in self.names:
            for dataset, row in self._rows(name).items():
                if row.state == SIGNED:  # its users let it end
                    self.accept(self.names.index(row.peer), dataset)

    def disagreement(self) -> str:
        """Return what nodes do not agree on; "" if nothing."""
        nodes = self.honest()
        if unknown := self.revocations.disagreement() or self._wrong_members(nodes):
            return unknown
        for dataset in self.datasets:
            heads = {None if (v := node.head(dataset)) is None else v.number for node in nodes}
            if self._is_orphaned(dataset):
                continue
            if len(heads) > 1:
                return f"versions {heads} of {dataset} are heads"
            newest = self._newest(dataset)
            for node in nodes if self._is_whole(newest) else ():
                if node.head(dataset) != newest:
                    continue
                state = node.copies_of(dataset)
                lacking = [name[:8] for name in state.lacking if name not in self.liars]
                if state.missing_here or lacking:
                    return f"{node.name[:8]} lacks {state.missing_here} copies, and so do {lacking}"
        if any(node.appends.waiting for node in nodes):
            return "appends wait"
        return self._hand_overs_under_way() or (
            "" if self.is_safe() else "some shards have too few copies"
        )

    def _wrong_members(self, nodes: Iterable[SimulatedNode]) -> str:
        expected = {node.name for node in nodes} | {n for n in self.liars if self.is_up(n)}
        for node in nodes:
            alive = {*node.members.alive(), node.name}
            if alive != expected:
                wrong = sorted(name[:8] for name in alive ^ expected)
                return f"{node.name[:8]} is wrong about {wrong}"
        return ""

    def check_convergence(self) -> None:
        """Check that the network recovers, and answers."""
        self.heal()
        is_done = self.simulation.run_until(lambda: not self.disagreement(), HEAL_SECONDS)
        self.check(is_done, f"no convergence: {self.disagreement()}")
        self.watch()
        self.check(set(self.queued) <= set(self.made), "a queued append was lost")
        self._finish_queries()
        for _ in range(3):  # a copy may be moved while it is asked for
            before, asked = self.answered_count, self._query_everywhere()
            self._finish_queries()
            if self.answered_count == before + asked:
                break
            self.simulation.run(5.0)
        self.check(self.answered_count == before + asked, "queries are refused after all faults")
        self._check_bounds()

    def _query_everywhere(self) -> int:
        """Start a query of each dataset at each honest node; return their number."""
        asked = 0
        for number, name in enumerate(self.names):
            for dataset in self.datasets:
                if not self.is_up(name) or not self.is_honest(name):
                    continue
                if self._is_whole(self.node(name).head(dataset)):
                    self.query(number, dataset)
                    asked += 1
        return asked

    def _finish_queries(self) -> None:
        ended = self.simulation.run_until(
            lambda: not any(node.queries.running for node in self.honest()), QUERY_SECONDS
        )
        self.check(ended, "queries do not end")

    def _check_bounds(self) -> None:
        """Check that nothing grows with what malicious nodes have sent."""
        for node in self.honest():
            members = node.members
            sizes = {
                "probes": (len(members._probes), PROBES_MAX),
                "rumors": (len(members._rumors), RUMORS_MAX),
                "peers": (len(members.peers), len(self.names)),
                "logs": (len(node.logs.logs), 4 * len(self.names)),
                "downloads": (len(node.transfers.objects), 50),
            }
            for what, (count, limit) in sizes.items():
                self.check(count <= limit, f"{node.name[:8]} has {count} {what}")


def _copy(value: Any) -> Any:
    """Copy what a disk holds, but not the objects, which are compared by identity."""
    if isinstance(value, dict):
        return {key: _copy(each) for key, each in value.items()}
    return list(value) if isinstance(value, list) else value
