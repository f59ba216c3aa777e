"""The membership protocol over simulated networks: what nodes believe of each other, and when."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from lake.peers.members.membership import News, _Probed
from lake.peers.members.statuses import Suspicion
from lake.peers.transport.machine import Effect, Send
from lake.peers.transport.messages import Message
from lake.peers.transport.signed import Statement
from lake.testing.simulation import Faults

from .peers_gossip import WALL, GossipNetwork, GossipNode, UnsignedSigner

SEEDS = range(6)


def converged(seed: int, size: int = 8, faults: Faults | None = None) -> GossipNetwork:
    network = GossipNetwork(seed, size, faults)
    assert network.simulation.run_until(network.agrees, 60)
    return network


@pytest.mark.parametrize("seed", SEEDS)
def test_nodes_that_know_one_seed_find_all_others(seed: int) -> None:
    network = GossipNetwork(seed, 16)
    assert network.simulation.run_until(network.agrees, 30)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crash_is_noticed_by_all_and_a_restart_too(seed: int) -> None:
    network = converged(seed)
    victim = network.names[3]
    network.simulation.crash(victim)
    assert network.simulation.run_until(lambda: network.agrees(dead=[victim]), 40)
    network.simulation.restart(victim)
    assert network.simulation.run_until(network.agrees, 40)


@pytest.mark.parametrize("seed", SEEDS)
def test_lost_messages_kill_no_node(seed: int) -> None:
    network = converged(seed, faults=Faults(loss=0.15, duplicate=0.1))
    for _ in range(40):
        network.simulation.run(5)
        assert network.deaths() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stopped_process_accuses_no_one_when_it_continues(seed: int) -> None:
    network = converged(seed)
    victim = network.names[2]
    network.simulation.freeze(victim)
    assert network.simulation.run_until(lambda: len(network.deaths()) == 7, 60)
    network.simulation.thaw(victim)
    network.simulation.run(0.3)
    assert set(network.view(victim).values()) == {"alive"}
    assert network.simulation.run_until(network.agrees, 60)


def test_a_probe_from_before_a_long_stop_leads_to_no_suspicion() -> None:
    network = converged(1)
    machine = network.simulation.process(network.names[2]).machine
    now = network.simulation.now
    while not machine._probes:
        list(machine.tick(now := now + 0.25))
    list(machine.tick(now + 60))
    assert {peer.state for peer in machine.peers.values()} == {"alive"}


@pytest.mark.parametrize("seed", SEEDS)
def test_both_sides_of_a_partition_find_each_other_again(seed: int) -> None:
    network = converged(seed)
    left, right = network.names[:3], network.names[3:]
    network.simulation.partition(left, right)
    network.simulation.run(60)
    assert set(network.deaths()) == {(a, b) for a in left for b in right} | {
        (b, a) for a in left for b in right
    }
    network.simulation.partition()
    assert network.simulation.run_until(network.agrees, 90)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_that_leaves_is_not_taken_for_dead(seed: int) -> None:
    network = converged(seed)
    name = network.names[5]
    node = network.simulation.process(name)
    network.simulation.perform(
        name, list(node._own(node.machine.leave(network.simulation.now, "left")))
    )
    network.simulation.run(1)
    network.simulation.crash(name)
    assert network.simulation.run_until(lambda: network.agrees(left=[name]), 60)


def test_a_node_that_comes_and_goes_waits_longer_to_be_settled() -> None:
    network = converged(1)
    victim, observer = network.names[4], network.names[0]
    machine = network.simulation.process(observer).machine
    network.simulation.run(20)
    assert victim in machine.settled(network.simulation.now)
    waits = []
    for _ in range(3):
        network.simulation.crash(victim)
        assert network.simulation.run_until(lambda: machine.peers[victim].state == "dead", 60)
        network.simulation.restart(victim)
        assert network.simulation.run_until(lambda: machine.peers[victim].state == "alive", 60)
        began = network.simulation.now
        assert network.simulation.run_until(
            lambda: victim in machine.settled(network.simulation.now), 300
        )
        waits.append(network.simulation.now - began)
    # 10 seconds, doubled by each return.
    assert [round(wait, -1) for wait in waits] == [20, 40, 80]


def test_a_refuted_suspicion_leaves_a_node_settled() -> None:
    network = converged(2)
    observer, victim = network.names[0], network.names[1]
    machine = network.simulation.process(observer).machine
    network.simulation.run(20)
    number = machine.peers[victim].status.number
    machine._suspect(_Probed(victim, 0.0, number), network.simulation.now)
    assert victim in machine.settled(network.simulation.now)
    network.simulation.run(10)
    assert machine.peers[victim].state == "alive"
    assert victim in machine.settled(network.simulation.now)


def suspicion(network: GossipNetwork, node: int, number: int, by: int) -> News:
    found = Suspicion(network.names[node], number, network.names[by])
    return News((UnsignedSigner(found.by).sign_suspicion(found, WALL),))


def test_one_accuser_alone_makes_no_node_suspect() -> None:
    network = converged(3)
    observer, victim, now = network.names[0], network.names[1], network.simulation.now
    machine = network.simulation.process(observer).machine
    number = machine.peers[victim].status.number
    for accuser, state in ((2, "alive"), (2, "alive"), (3, "suspect")):
        message = suspicion(network, 1, number, accuser)
        list(machine.receive(network.names[accuser], message, now))
        assert machine.peers[victim].state == state


def test_a_suspicion_of_a_status_that_does_not_exist_is_ignored() -> None:
    network = converged(3)
    victim = network.names[1]
    machine = network.simulation.process(victim).machine
    before = machine.own.number
    for number in (before + 1, 2**53 - 1):  # one more could not be signed
        list(machine.receive(network.names[2], suspicion(network, 1, number, 2), 0.0))
    assert machine.own.number == before


@pytest.mark.parametrize("seconds", [7200.0, -90000.0])
def test_a_status_of_a_wrong_clock_is_signed_anew_when_the_clock_is_right(seconds: float) -> None:
    network = converged(1)
    machine = network.simulation.process(network.names[1]).machine
    machine._wall = lambda: WALL + seconds
    list(machine.update(0.0))
    machine._wall = lambda: WALL
    list(machine.tick(network.simulation.now))
    assert machine.statements()[0].issued_at == WALL


def test_a_probe_from_before_a_restart_accuses_no_newer_status() -> None:
    network = converged(1)
    observer, victim = network.names[0], network.names[4]
    machine = network.simulation.process(observer).machine
    now, number = network.simulation.now, machine.peers[victim].status.number
    machine._suspect(_Probed(victim, now, number - 1), now)
    assert machine.peers[victim].state == "alive"


class Forger(GossipNode):
    """Sends statements in the names of others, and accuses everybody, all the time."""

    def tick(self, now: float) -> Iterable[Effect]:
        yield from super().tick(now)
        own = UnsignedSigner(self.machine.own.node)
        for node, peer in self.machine.peers.items():
            status = peer.status
            forged = [
                Statement(
                    "status",
                    {**status.to_json(), "state": "left", "number": 10**9},
                    WALL,
                    0.0,
                    own._node,
                ),
                Statement(
                    "suspicion",
                    {"node": node, "number": status.number, "by": "f" * 64},
                    WALL,
                    0.0,
                    own._node,
                ),
                Statement("status", {"node": node, "number": "x"}, WALL, 0.0, own._node),
                Statement("invite", {}, WALL, 0.0, ""),
            ]
            for other in self.machine.peers:
                message: Message = News(tuple(forged))
                yield Send(other, message)


@pytest.mark.parametrize("seed", SEEDS)
def test_forged_statements_change_no_view(seed: int) -> None:
    network = converged(seed)
    forger = network.names[7]
    network.simulation.crash(forger)
    network.simulation._nodes[forger].make = lambda disk: Forger(
        forger, disk, network.simulation, network.names
    )
    network.simulation.restart(forger)
    assert network.simulation.run_until(network.agrees, 60)
    network.simulation.run(20)
    assert network.agrees()


def test_a_seed_replays_its_history() -> None:
    def history() -> list[tuple[str, list[str]]]:
        network = converged(7, faults=Faults(loss=0.2, duplicate=0.2))
        network.simulation.crash(network.names[1])
        network.simulation.run(30)
        return [(n, network.simulation.process(n).changes) for n in network.simulation.running()]

    assert history() == history()


def test_traffic_of_a_node_does_not_grow_with_the_network() -> None:
    def bytes_per_second(size: int) -> float:
        network = converged(3, size)
        network.simulation.run(30)  # what was new has spread
        before = sum(network.simulation.sent.values())
        network.simulation.run(30)
        return (sum(network.simulation.sent.values()) - before) / 30 / size

    assert bytes_per_second(32) < 3 * bytes_per_second(8)
