"""Copies in simulated networks: placed, fetched, repaired, dropped, and never lost."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.peers.copies.have_messages import HaveReply
from lake.peers.copies.placement import Candidate, Placement, holders
from lake.peers.copies.replication import FetchCopy, Replica, Replication, SharedObjects
from lake.peers.transport.machine import Call, Replied
from lake.testing.simulation import Faults
from sennit_core.errors import UsageError

from .peers_offices import OPTIONS, OfficeNetwork, StoredObject

SEEDS = range(4)
NODES = st.lists(
    st.builds(
        Candidate,
        st.integers(0, 99).map(lambda n: f"node{n}"),
        st.sampled_from(("", "oslo", "rome", "bern")),
        st.integers(0, 1000),
    ),
    max_size=12,
    unique_by=lambda candidate: candidate.node,
)


def replicated(seed: int, **options: object) -> OfficeNetwork:
    network = OfficeNetwork(seed, **options)  # type: ignore[arg-type]
    assert network.simulation.run_until(network.is_replicated, 300)
    return network


# Placement


@given(nodes=NODES, factor=st.integers(1, 5), key=st.text())
def test_copies_are_on_different_nodes_and_zones_in_turn(
    nodes: list[Candidate], factor: int, key: str
) -> None:
    chosen = holders(key, Placement(factor), nodes)
    usable = [each for each in nodes if each.capacity]
    assert len(set(chosen)) == len(chosen) == min(factor, len(usable))
    zones = {node.node: node.zone or node.node for node in usable}
    most = len({zones[node] for node in zones})
    assert len({zones[node] for node in chosen}) == min(len(chosen), most)


@given(nodes=NODES, key=st.text(), factor=st.integers(1, 5), gone=st.integers(0, 11))
def test_a_node_that_goes_moves_only_its_own_copies(
    nodes: list[Candidate], key: str, factor: int, gone: int
) -> None:
    plain = [Candidate(each.node, "", each.capacity) for each in nodes]
    before = holders(key, Placement(factor), plain)
    rest = [each for number, each in enumerate(plain) if number != gone]
    after = holders(key, Placement(factor), rest)
    left = {each.node for each in rest}
    assert set(before) & left <= set(after)


@given(nodes=NODES, key=st.text())
def test_pins_come_first_and_only_limits(nodes: list[Candidate], key: str) -> None:
    names = [each.node for each in nodes]
    pins, only = tuple(names[:1]), tuple(names[:4])
    chosen = holders(key, Placement(3, pins, only), nodes)
    assert chosen[: len(pins)] == pins
    assert set(chosen) <= set(only) or not only


def test_capacity_is_the_share_of_copies() -> None:
    nodes = [Candidate("a", "", 1), Candidate("b", "", 3)]
    chosen = [holders(str(n), Placement(1), nodes)[0] for n in range(4000)]
    assert 0.22 < chosen.count("a") / 4000 < 0.28


@pytest.mark.parametrize("bad", [Placement(0), Placement(17), Placement(1, ("a",), ("b",))])
def test_a_placement_that_cannot_be_is_refused(bad: Placement) -> None:
    with pytest.raises(UsageError):
        bad.check()


# Networks


@pytest.mark.parametrize("seed", SEEDS)
def test_every_object_reaches_its_factor(seed: int) -> None:
    replicated(seed, faults=Faults(loss=0.1, call_loss=0.02))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_short_absence_moves_nothing(seed: int) -> None:
    network = replicated(seed)
    before = {each.name: network.holders(each) for each in network.stored}
    network.simulation.crash(network.names[2])
    network.simulation.run(20)
    network.simulation.restart(network.names[2])
    network.simulation.run(60)
    assert {each.name: network.holders(each) for each in network.stored} == before


@pytest.mark.parametrize("seed", SEEDS)
def test_lost_copies_are_made_anew_and_surplus_ones_dropped(seed: int) -> None:
    network = replicated(seed)
    network.simulation.crash(network.names[2])
    assert network.simulation.run_until(network.is_replicated, 300)
    network.simulation.restart(network.names[2])
    network.simulation.run(30)
    assert network.is_safe()
    assert network.simulation.run_until(network.is_replicated, 600)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_writer_may_be_lost_for_ever(seed: int) -> None:
    network = replicated(seed)
    network.simulation.crash(network.names[0])
    assert network.simulation.run_until(network.is_safe, 300)


@pytest.mark.parametrize("leaving", [0, 2], ids=["the writer", "another node"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_that_hands_over_first_leaves_no_shard_with_too_few_copies(
    seed: int, leaving: int
) -> None:
    network = replicated(seed)
    simulation, node = network.simulation, network.node(leaving)
    node.leave(simulation.now)
    assert simulation.run_until(lambda: not node.is_needed(simulation.now), 300)
    assert simulation.process(network.names[leaving]).members.own.state == "leaving"
    simulation.crash(network.names[leaving])
    assert network.is_safe()
    # Nor later, when nobody waits for it to come back.
    for _ in range(60):
        simulation.run(1)
        assert network.is_safe()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_copy_is_replaced_from_the_others(seed: int) -> None:
    network = replicated(seed)
    victim = network.node(1) if network.node(1).objects else network.node(2)
    name = min(victim.objects)
    network.simulation.crash(victim.name)
    copy = victim.objects[name]
    victim.objects[name] = StoredObject(name, bytes(len(copy.data)), copy.digests)
    network.simulation.restart(victim.name)
    assert network.simulation.run_until(network.is_replicated, 120)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_that_sends_wrong_chunks_is_not_asked_again(seed: int) -> None:
    network = OfficeNetwork(seed, faults=Faults(body_corrupt=0.005))
    network.liars = {network.names[1]}
    assert network.simulation.run_until(network.is_replicated, 600)
    wrong = [network.node(n).transfers.wrong.get(network.names[1], []) for n in (2, 3, 4)]
    assert max(map(len, wrong)) <= 6


@pytest.mark.parametrize("seed", SEEDS)
def test_zones_each_have_a_copy(seed: int) -> None:
    zones = {0: "oslo", 1: "oslo", 2: "rome", 3: "rome", 4: "bern"}
    network = replicated(seed, zones=zones)
    for each in network.stored:
        assert {network.zones[node] for node in network.holders(each)} >= {"oslo", "bern"}


@pytest.mark.parametrize("seed", SEEDS)
def test_no_object_is_lost_while_fewer_nodes_than_copies_fail(seed: int) -> None:
    network = replicated(seed, faults=Faults(loss=0.1, call_loss=0.02, duplicate=0.1))
    random = Random(seed)
    for _ in range(12):
        down = random.sample(network.names, 2)
        for name in down:
            network.simulation.crash(name)
        if random.random() < 0.5:
            cut = random.sample(network.names, 3)
            network.simulation.partition(cut, [n for n in network.names if n not in cut])
        network.simulation.run(random.uniform(10, 200))
        assert all(network.holders(each) for each in network.stored)
        network.simulation.partition()
        for name in down:
            network.simulation.restart(name)
        assert network.simulation.run_until(network.is_safe, 600)
    assert network.simulation.run_until(network.is_replicated, 600)


def test_a_copy_is_found_at_a_node_that_need_not_hold_it() -> None:
    nodes = [f"node{number}" for number in range(20)]
    shared = SharedObjects("trips", "lost", Placement(3), None, (Replica("x", "x", 1),))
    targets = holders("x", shared.placement, map(Candidate, nodes))
    only = next(node for node in reversed(nodes) if node not in targets)
    machine = Replication(targets[0], lambda _shared, _name: False, OPTIONS)
    for now in range(0, 100, 2):
        effects = list(machine.tick(now, [shared], [Candidate(node) for node in nodes], nodes))
        for call in [each for each in effects if isinstance(each, Call)]:
            machine.replied(Replied(call.id, HaveReply(), bytes([call.peer == only])))
        if any(isinstance(each, FetchCopy) and only in each.sources for each in effects):
            return
    pytest.fail("it is never fetched")


def test_a_copy_is_sought_while_a_node_claims_one_that_it_does_not_send() -> None:
    nodes = [f"node{number}" for number in range(20)]
    shared = SharedObjects("trips", "lost", Placement(3), None, (Replica("x", "x", 1),))
    targets = holders("x", shared.placement, map(Candidate, nodes))
    only, liar = next(node for node in reversed(nodes) if node not in targets), targets[1]
    machine = Replication(targets[0], lambda _shared, _name: False, OPTIONS)
    for now in range(0, 100, 2):
        for each in list(machine.tick(now, [shared], list(map(Candidate, nodes)), nodes)):
            match each:
                case Call(peer, number):
                    claims = bytes([peer in (only, liar)])
                    machine.replied(Replied(number, HaveReply(), claims))
                case FetchCopy(dataset, name, _, sources) if sources:
                    if only in sources:
                        return
                    machine.unobtainable(dataset, name)
    pytest.fail("the only copy is never fetched")
