"""Chains of hand-overs: what is believed, and what a hostile member tries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lake.catalog.node_key import NodeKey
from lake.peers.handovers.handovers import HANDOVERS_MAX, HandOvers, Term
from lake.peers.transport.signed import Statement, sign
from sennit_core.errors import Conflict, Denied

NOW = 1_000_000.0
YEARS = 20 * 365 * 24 * 3600.0


class World:
    """Three members, who hand a dataset over."""

    def __init__(self, folder: Path) -> None:
        self.keys = {name: NodeKey(folder / name) for name in ("rome", "oslo", "evil")}
        self.ids = {name: key.id for name, key in self.keys.items()}
        self.first = Term(self.ids["rome"])

    def of(self, name: str, network: str = "net") -> HandOvers:
        return HandOvers(self.keys[name], network)

    def follow(self, chain: list[Statement], term: Term | None = None, now: float = NOW) -> Term:
        return self.of("evil").follow("d1", term or self.first, chain, now)

    def chain(self, *names: str) -> list[Statement]:
        """The statements by which a dataset of Rome went from one node to the next."""
        chain: list[Statement] = []
        term, giver = self.first, "rome"
        for version, taker in enumerate(names, 5):
            head = (f"s{version}", f"m{version}", version)
            chain.append(self.of(giver).sign("d1", term, self.ids[taker], head, NOW))
            term, giver = self.follow(chain), taker
        return chain


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_chain_leads_to_the_newest_writer(world: World) -> None:
    chain = world.chain("oslo", "evil", "rome")
    assert world.follow(chain[:1]) == Term(world.ids["oslo"], 1, chain[0].digest, 5)
    assert world.follow(chain) == Term(world.ids["rome"], 3, chain[2].digest, 7)
    assert world.follow(chain, world.follow(chain[:2])) == world.follow(chain)
    assert world.follow([]) == world.first


def test_a_node_that_was_away_for_years_follows(world: World) -> None:
    assert world.follow(world.chain("oslo"), now=NOW + YEARS).writer == world.ids["oslo"]


def test_only_the_writer_hands_over(world: World) -> None:
    with pytest.raises(Denied, match="which node"):
        world.of("evil").sign("d1", world.first, world.ids["evil"], ("s", "m", 9), NOW)
    believes_itself = Term(world.ids["evil"])
    stolen = world.of("evil").sign("d1", believes_itself, world.ids["oslo"], ("s", "m", 9), NOW)
    with pytest.raises(Denied, match="signed it"):
        world.follow([stolen])


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"dataset": "d2"}, "another dataset"),
        ({"network": "other"}, "another dataset"),
        ({"giver": "x"}, "another dataset"),
        ({"number": 2}, "does not continue"),
        ({"previous": "x"}, "does not continue"),
        ({"version": 0}, "not possible"),
    ],
)
def test_a_statement_counts_for_one_step(world: World, members: dict[str, Any], why: str) -> None:
    body = {**world.chain("oslo")[0].body, **members}
    with pytest.raises(Denied, match=why):
        world.follow([sign(world.keys["rome"], "hand-over", body, now=NOW)])


def test_a_changed_statement_is_refused(world: World) -> None:
    good = world.chain("oslo")[0]
    with pytest.raises(Denied, match="signature"):
        world.follow([replace(good, body={**good.body, "taker": world.ids["evil"]})])


def test_a_former_writer_cannot_show_its_statement_again(world: World) -> None:
    # It went to Oslo and came back; what Oslo still has proves nothing more.
    chain = world.chain("oslo", "rome")
    with pytest.raises(Denied, match="end before"):
        world.follow(chain[:1], world.follow(chain))


def test_of_two_hand_overs_of_one_number_the_first_one_seen_counts(world: World) -> None:
    to_oslo, to_evil = world.chain("oslo"), world.chain("evil")
    believed = world.follow(to_oslo)
    with pytest.raises(Denied, match="not the one that is known"):
        world.follow(to_evil, believed)


def test_a_version_never_goes_back(world: World) -> None:
    chain = world.chain("oslo")
    earlier = ("s4", "m4", 4)
    back = world.of("oslo").sign("d1", world.follow(chain), world.ids["rome"], earlier, NOW)
    with pytest.raises(Denied, match="not possible"):
        world.follow([*chain, back])


def test_a_writer_does_not_hand_over_to_itself(world: World) -> None:
    with pytest.raises(Denied, match="not possible"):
        world.chain("rome")


def test_the_length_of_a_chain_has_a_limit(world: World) -> None:
    term = replace(world.first, number=HANDOVERS_MAX)
    with pytest.raises(Conflict, match="fork"):
        world.of("rome").sign("d1", term, world.ids["oslo"], ("s", "m", 9), NOW)
    with pytest.raises(Denied, match="at most"):
        world.follow(world.chain("oslo") * (HANDOVERS_MAX + 1))
