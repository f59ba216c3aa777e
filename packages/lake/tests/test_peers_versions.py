"""A node of the first version in one network with this one: what both know works, the rest is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import pyarrow as pa
import pytest

from lake.access.rules import PolicyRule
from lake.peers.transport.messages import Message, MessageCodec
from sennit_core.errors import SennitError

from .real_offices import TABLE, Office, office
from .test_peers_service import eventually

FIRST_FEATURES = ("chunks", "fragments", "relay")
FIRST_KINDS = {
    "accept", "cancel", "chunk", "chunk-reply", "compare", "confirm", "end", "error", "fragment",
    "fragment-piece", "have", "have-reply", "hello", "join", "list", "list-reply", "log-entries",
    "log-heads", "log-want", "news", "probe", "probe-for", "relay-accept", "relay-bytes", "relay-open",
    "relay-ready", "relay-write", "roster", "roster-head", "welcome",
}  # fmt: skip
"""The messages of the first version."""


def first_codec(kinds: Iterable[type[Message]]) -> MessageCodec:
    return MessageCodec([each for each in kinds if each.kind in FIRST_KINDS])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Office]]:
    """Oslo, of the first version, has founded the network that Rome has joined."""
    folder = tmp_path_factory.mktemp("mixed")
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lake.peers.codec.MessageCodec", first_codec)
            patch.setattr("lake.peers.joined.FEATURES", FIRST_FEATURES)
            oslo = stack.enter_context(office(folder, "oslo"))
            invite = oslo.peers.invite()
        rome = stack.enter_context(office(folder, "rome"))
        rome.peers.join(invite)
        eventually(lambda: all(len(each.peers.nodes()) == 2 for each in (oslo, rome)))
        oslo.lake.append("trips", TABLE)
        rome.lake.append("cities", pa.table({"id": [1, 2], "city": ["Oslo", "Bern"]}))
        yield {"oslo": oslo, "rome": rome}


def test_what_two_versions_cannot_do_together_is_said(mixed: dict[str, Office]) -> None:
    def lacking() -> set[str]:
        (other,) = [n for n in mixed["rome"].peers.nodes() if n.member.name == "oslo"]
        return set(other.cannot)

    eventually(lambda: {"changes", "reports"} <= lacking())
    assert not lacking() & set(FIRST_FEATURES)


@pytest.mark.slow  # two queries over two nodes
def test_datasets_of_both_are_read_by_both(mixed: dict[str, Office]) -> None:
    mixed["oslo"].peers.share("trips", None)
    mixed["rome"].peers.share("cities", None)

    eventually(lambda: all({"trips", "cities"} <= each.names() for each in mixed.values()))
    for each in mixed.values():
        found = each.query("SELECT name, city FROM trips JOIN cities USING (id) ORDER BY id")
        assert found == [("a", "Oslo"), ("b", "Bern")]


def test_a_change_is_refused_by_the_writer_that_does_not_know_it(mixed: dict[str, Office]) -> None:
    mixed["oslo"].lake.append("routes", TABLE)
    mixed["oslo"].peers.share("routes", ["rome"], read_only=False)
    eventually(lambda: "routes" in mixed["rome"].names())

    with pytest.raises(SennitError, match="newer version"):
        mixed["rome"].query("INSERT INTO routes VALUES (9, 'z')")
    assert mixed["rome"].query("SELECT count(*) FROM routes") == [(3,)]


def test_the_first_version_learns_nothing_of_a_restricted_dataset(mixed: dict[str, Office]) -> None:
    rome = mixed["rome"]
    rome.lake.append("pay", pa.table({"id": [1, 2], "pay": [10, 20]}))
    rome.lake.set_policy("pay", [PolicyRule("*@oslo", rows="id = 1")])
    rome.peers.share("pay", None)
    rome.lake.append("other", TABLE)
    rome.peers.share("other", None)

    eventually(lambda: "other" in mixed["oslo"].names())
    shards = rome.lake.catalog.manifest("pay").snapshot.shards
    assert not any(each.object in mixed["oslo"].lake.objects for each in shards)


def test_a_node_leaves_one_that_knows_no_handing_over(mixed: dict[str, Office]) -> None:
    mixed["rome"].peers.leave()  # the last test of this network

    assert mixed["rome"].peers.network_id is None
    eventually(lambda: "left" in {node.state for node in mixed["oslo"].peers.nodes()})
