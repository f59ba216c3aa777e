"""The logs of published datasets over simulated networks: who learns what, and that all agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from random import Random
from typing import Any

import pytest

from lake.peers.sharing import publications
from lake.peers.sharing.publications import (
    ENTRY_SECONDS,
    EVERYONE,
    MESSAGES,
    Entries,
    Heads,
    LogForked,
    LogKey,
    PublicationOptions,
    Publications,
    Published,
    StoreLog,
)
from lake.peers.transport.machine import Effect, Failed, Replied, Send
from lake.peers.transport.messages import Message, MessageCodec
from lake.peers.transport.signed import Statement
from lake.testing.simulation import Disk, Faults, Simulation
from sennit_core.errors import Denied, Unsupported

from .peers_gossip import WALL, node_name

SEEDS = range(5)
CODEC = MessageCodec(MESSAGES)
OPTIONS = PublicationOptions(checkpoint_entries=8)
DAY_SECONDS = 24 * 3600.0


class UnsignedEntries:
    def __init__(self, node: str) -> None:
        self._node = node

    def sign(self, body: Mapping[str, Any], now: float) -> Statement:
        return Statement("publication", body, now, 0.0, self._node)

    def read(self, entry: Statement, now: float) -> Mapping[str, Any]:
        if entry.signature != entry.body["publisher"]:
            raise Denied("accepting a forged entry")
        if entry.issued_at + ENTRY_SECONDS < now:
            raise Denied("accepting an entry that has expired")
        return entry.body


class LogNode:
    """A process that only publishes; its logs are its disk."""

    def __init__(self, network: LogNetwork, name: str, disk: Disk) -> None:
        self._network, self._disk, self.name = network, disk, name
        disk.setdefault("logs", {})
        self.forks: list[LogForked] = []
        self.heard: list[Published] = []
        self.machine = Publications(
            name, UnsignedEntries(name), lambda node: node in network.names,
            Random(network.simulation.random.random()), OPTIONS,
            logs=disk["logs"], wall=lambda: WALL + network.days * DAY_SECONDS,
        )  # fmt: skip

    def publish(self, dataset: str, item: Mapping[str, Any] | None, audience: str) -> None:
        effects = self.machine.publish(dataset, item, audience, self._others())
        self._network.simulation.perform(self.name, self._own(effects))

    def tick(self, now: float) -> Iterable[Effect]:
        return self._own(self.machine.tick(now, self._others()))

    def receive(self, peer: str, message: Message, now: float) -> Iterable[Effect]:
        self._network.seen.setdefault(self.name, []).append(message)
        return self._own(self.machine.receive(peer, message, self._others()))

    def serve(self, peer: str, message: Message, now: float) -> tuple[Message, bytes]:
        raise Unsupported(message.kind)

    def settled(self, result: Replied | Failed, now: float) -> Iterable[Effect]:
        raise AssertionError("logs send no requests")

    def _others(self) -> list[str]:
        return [name for name in self._network.names if name != self.name]

    def _own(self, effects: Iterable[Effect]) -> Iterable[Effect]:
        for effect in effects:
            match effect:
                case StoreLog(key, entries, pruned):
                    stored = [*self._disk["logs"].get(key, []), *entries]
                    self._disk["logs"][key] = [e for e in stored if e.body["number"] >= pruned]
                case LogForked():
                    self.forks.append(effect)
                case Published():
                    self.heard.append(effect)
                case _:
                    yield effect


class LogNetwork:
    def __init__(self, seed: int, size: int = 6, faults: Faults | None = None) -> None:
        self.simulation = Simulation(seed, CODEC, faults)
        self.names = [node_name(number) for number in range(size)]
        self.seen: dict[str, list[Message]] = {}
        self.days = 0.0
        for name in self.names:
            self.simulation.add(name, partial(LogNode, self, name))

    def node(self, number: int) -> LogNode:
        found: LogNode = self.simulation.process(self.names[number])
        return found

    def items(self, observer: str, key: LogKey) -> dict[str, Any]:
        log = self.simulation.process(observer).machine.logs.get(key)
        items = {} if log is None else log.items
        return {dataset: item for dataset, item in items.items() if item is not None}

    def agrees(self) -> bool:
        """Return whether all running nodes know what each publisher says to everybody."""
        running = list(self.simulation.running())
        return all(
            self.items(observer, LogKey(p)) == self.items(p, LogKey(p))
            for observer in running
            for p in running
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_random_histories_of_publishing_end_in_agreement(seed: int) -> None:
    network = LogNetwork(seed, faults=Faults(loss=0.2, duplicate=0.2, delay_seconds=(0.001, 2.0)))
    random = Random(seed)
    down: str | None = None
    for step in range(120):
        network.simulation.run(random.uniform(0, 1.0))
        running = list(network.simulation.running())
        node = network.simulation.process(random.choice(running))
        item = None if random.random() < 0.2 else {"version": step}
        node.publish(f"d{random.randrange(4)}", item, EVERYONE)
        if random.random() < 0.1:
            cut = random.randrange(1, 5)
            network.simulation.partition(network.names[:cut], network.names[cut:])
        elif random.random() < 0.2:
            network.simulation.partition()
        if down is not None and random.random() < 0.3:
            network.simulation.restart(down)
            down = None
        elif down is None and random.random() < 0.1:
            down = random.choice(running)
            network.simulation.crash(down)
    network.simulation.partition()
    if down is not None:
        network.simulation.restart(down)
    assert network.simulation.run_until(network.agrees, 300)
    assert not any(node.forks for node in map(network.node, range(6)))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_shared_with_one_node_reaches_no_other(seed: int) -> None:
    network = LogNetwork(seed, faults=Faults(loss=0.2))
    publisher, friend = network.node(0), network.names[3]
    publisher.publish("open", {"name": "open"}, EVERYONE)
    for version in range(20):
        publisher.publish("secret", {"name": "hidden", "version": version}, friend)
        network.simulation.run(1)
    key = LogKey(publisher.name, friend)
    assert network.simulation.run_until(
        lambda: network.items(friend, key) == network.items(publisher.name, key), 120
    )
    for name in network.names:
        if name not in (publisher.name, friend):
            assert "hidden" not in repr(network.seen.get(name))
            assert friend[:16] not in repr(
                [m for m in network.seen[name] if isinstance(m, Entries)]
            )


def test_a_node_that_was_away_for_long_starts_at_a_checkpoint() -> None:
    network = LogNetwork(1)
    late = network.names[5]
    network.simulation.crash(late)
    for version in range(50):
        network.node(0).publish(f"d{version % 3}", {"version": version}, EVERYONE)
    network.simulation.restart(late)
    assert network.simulation.run_until(network.agrees, 60)
    assert network.simulation.process(late).machine.logs[LogKey(network.names[0])].first > 30


def test_a_checkpoint_of_many_datasets_has_parts() -> None:
    network = LogNetwork(1, size=3)
    for number in range(300):
        network.node(0).publish(f"d{number}", {"text": "x" * 500}, EVERYONE)
    network.node(0).publish("d0", None, EVERYONE)
    assert network.simulation.run_until(network.agrees, 120)
    assert len(network.items(network.names[2], LogKey(network.names[0]))) == 299


def test_entries_in_the_name_of_others_are_not_accepted() -> None:
    network = LogNetwork(2)
    network.node(0).publish("d", {"version": 1}, EVERYONE)
    assert network.simulation.run_until(network.agrees, 60)
    victim, forger = network.names[0], network.names[1]
    log = network.node(1).machine.logs[LogKey(victim)]
    body = {"publisher": victim, "audience": EVERYONE, "number": 2, "previous": log.digest}
    forged = Statement("publication", {**body, "dataset": "d", "item": None}, WALL, 0.0, forger)
    network.simulation.perform(forger, [Send(name, Entries((forged,))) for name in network.names])
    network.simulation.run(30)
    assert network.agrees()
    assert network.items(network.names[4], LogKey(victim)) == {"d": {"version": 1}}


def restart_with(network: LogNetwork, logs: Mapping[LogKey, list[Statement]]) -> None:
    """Restart the publisher with these logs on its disk."""
    publisher = network.names[0]
    if publisher in network.simulation.running():
        network.simulation.crash(publisher)
    network.simulation._nodes[publisher].disk["logs"] = dict(logs)
    network.simulation.restart(publisher)


def backup_of(network: LogNetwork) -> dict[LogKey, list[Statement]]:
    return {key: list(entries) for key, entries in network.node(0)._disk["logs"].items()}


def test_a_publisher_that_was_restored_takes_its_log_from_the_others() -> None:
    network = LogNetwork(3)
    publisher = network.names[0]
    network.node(0).publish("d", {"version": 1}, EVERYONE)
    backup = backup_of(network)
    network.node(0).publish("d", {"version": 2}, EVERYONE)
    assert network.simulation.run_until(network.agrees, 60)
    restart_with(network, backup)
    assert network.simulation.run_until(
        lambda: network.items(publisher, LogKey(publisher)) == {"d": {"version": 2}}, 60
    )


@pytest.mark.parametrize("published", [1, 2, 5])
@pytest.mark.parametrize("is_lost", [False, True])
def test_a_publisher_that_uses_numbers_again_is_noticed_and_believed(
    published: int, *, is_lost: bool
) -> None:
    """A restored backup, or a node that has left and joined again: its log is empty."""
    network = LogNetwork(4)
    key = LogKey(network.names[0])
    network.node(0).publish("d", {"version": 1}, EVERYONE)
    network.simulation.run(30)
    backup = {} if is_lost else backup_of(network)
    network.node(0).publish("d", {"version": 2}, EVERYONE)
    network.node(0).publish("e", {"version": 2}, EVERYONE)
    network.simulation.run(30)
    restart_with(network, backup)
    for version in range(published):  # before it has asked anybody
        network.node(0).publish("d", {"version": f"restored {version}"}, EVERYONE)
    assert network.simulation.run_until(lambda: bool(network.node(0).forks), 60)
    newest = {"d": {"version": f"restored {published - 1}"}}
    assert network.simulation.run_until(
        lambda: all(network.items(name, key) == newest for name in network.names), 120
    )
    network.node(0).publish("d", {"version": "next"}, EVERYONE)
    assert network.simulation.run_until(network.agrees, 60)
    assert network.node(0).machine.forked == {network.names[0]}  # also after it was mended
    numbers = [entry.body["number"] for entry in network.node(5).machine.logs[key].entries]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_what_is_published_for_long_reaches_nodes_that_come_later() -> None:
    network = LogNetwork(5)
    late = network.names[5]
    network.simulation.crash(late)
    network.node(0).publish("d", {"version": 1}, EVERYONE)
    network.node(0).publish("secret", {"version": 1}, late)
    for network.days in (0, 100, 200):
        network.simulation.run(60)
    network.simulation.restart(late)
    assert network.simulation.run_until(network.agrees, 60)
    key = LogKey(network.names[0], late)
    assert network.simulation.run_until(lambda: bool(network.items(late, key)), 120)


def test_a_log_that_grows_without_end_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publications, "LOG_BYTES_MAX", 50_000)
    network = LogNetwork(6, size=3)
    monkeypatch.setattr(network.node(0).machine, "_options", PublicationOptions())
    for number in range(100):
        network.node(0).publish(f"d{number}", {"text": "x" * 1000}, EVERYONE)
    network.simulation.run(30)
    log = network.node(1).machine.logs[LogKey(network.names[0])]
    assert 10 < len(log.items) < 50
    assert log.size < 50_000


def test_a_change_of_many_datasets_costs_one_entry() -> None:
    network = LogNetwork(7, size=2)
    for number in range(600):
        network.node(0).publish(f"d{number}", {"text": "x" * 1000}, EVERYONE)
    log = network.node(0).machine.logs[LogKey(network.names[0])]
    assert log.checkpoint_parts > OPTIONS.checkpoint_entries
    before = log.number
    for version in range(OPTIONS.checkpoint_entries // 2):
        network.node(0).publish("d0", {"version": version}, EVERYONE)
    assert log.number - before <= log.checkpoint_parts + OPTIONS.checkpoint_entries


# Many logs


class Pair:
    """Two nodes that compare their logs; `sent` are the messages between them."""

    def __init__(self, logs: Mapping[LogKey, list[Statement]]) -> None:
        self.names = ["oslo", "rome"]
        self.sent: list[Message] = []
        self.machines = {
            name: Publications(
                name, UnsignedEntries(name), lambda _node: True, Random(7),
                PublicationOptions(compare_seconds=1.0), logs=logs if name == "oslo" else {},
                wall=lambda: WALL,
            )
            for name in self.names
        }  # fmt: skip

    def run(self, now: float) -> list[int]:
        """Let both compare; return how many messages each step led to."""
        counts = []
        for name, other in (self.names, reversed(self.names)):
            waiting = [(name, each) for each in self.machines[name].tick(now, [other])]
            while waiting:
                sender, effect = waiting.pop(0)
                if not isinstance(effect, Send):
                    continue
                self.sent.append(CODEC.decode(CODEC.encode(effect.message))[0] or effect.message)
                receiver = effect.peer
                found = list(self.machines[receiver].receive(sender, self.sent[-1], [sender]))
                counts.append(len(found))
                waiting += [(receiver, each) for each in found]
        return counts


def published_by(count: int, text_bytes: int = 10) -> dict[LogKey, list[Statement]]:
    """The logs of many nodes, with an entry each."""
    found = {}
    for number in range(count):
        name = node_name(number)
        body = {"publisher": name, "audience": EVERYONE, "number": 1, "previous": ""}
        item = {"text": "x" * text_bytes}
        entry = Statement("publication", {**body, "dataset": name, "item": item}, WALL, 0.0, name)
        found[LogKey(name)] = [entry]
    return found


def test_more_logs_than_a_message_names_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publications, "_HEADS_MAX", 20)
    pair = Pair(published_by(60))
    rounds = 0
    while len(list(pair.machines["rome"].items())) < 60:
        rounds += 1
        assert rounds < 100
        pair.run(rounds * 2.0)
    # Once both know all, nothing is sent but heads: what a message does not name may be known.
    pair.sent.clear()
    pair.run(1000.0)
    assert {type(each) for each in pair.sent} == {Heads}


def test_an_answer_to_heads_is_bounded() -> None:
    pair = Pair(published_by(100, text_bytes=50_000))
    effects = pair.machines["oslo"].receive("rome", Heads({}), ["rome"])
    batches = [each.message for each in effects if isinstance(each, Send)]
    assert 4 < len(batches) <= 32
    assert sum(len(repr(each)) for each in batches) < 2 << 20
    heads = {f"{node_name(n)}/*": [5, "digest"] for n in range(900)}
    assert len(list(pair.machines["rome"].receive("oslo", Heads(heads), ["oslo"]))) <= 32


def test_an_entry_of_a_clock_that_was_ahead_is_replaced_when_it_is_right_again() -> None:
    network = LogNetwork(1, size=3)
    publisher = network.node(0)
    publisher.publish("d", {"version": 1}, EVERYONE)
    publisher.machine._wall = lambda: WALL + 7200
    publisher.publish("d", {"version": 2}, EVERYONE)
    publisher.machine._wall = lambda: WALL
    [stored] = [each for each in publisher.machine.tick(0.0, []) if isinstance(each, StoreLog)]
    assert [each.issued_at for each in stored.entries] == [WALL]
    assert stored.entries[0].body["items"] == {"d": {"version": 2}}


def test_the_proof_of_a_fork_is_passed_on_but_not_stored() -> None:
    network = LogNetwork(1, size=4)
    publisher, observer = network.names[0], network.node(1)
    network.node(0).publish("d", {"version": 1}, EVERYONE)
    assert network.simulation.run_until(network.agrees, 60)
    stored = list(observer._disk["logs"][LogKey(publisher)])
    body = {"publisher": publisher, "audience": EVERYONE, "number": 1, "previous": ""}
    other = UnsignedEntries(publisher).sign({**body, "dataset": "d", "item": 3}, WALL)
    effects = list(observer.receive(network.names[2], Entries((other,)), 0.0))
    assert observer.forks
    assert [each.message for each in effects if isinstance(each, Send)] == [Entries((other,))]
    assert observer._disk["logs"][LogKey(publisher)] == stored
    network.simulation.crash(observer.name)
    network.simulation.restart(observer.name)  # what is stored can be read
