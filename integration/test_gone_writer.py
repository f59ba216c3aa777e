"""The node that writes a dataset is gone for ever: the others keep what they hold, and a fork of it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from networks import eventually, members

from nodes import RunningNode, platform

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(600),
]  # three processes, one of which is killed


def ids(node: RunningNode, dataset: str) -> list[int]:
    with node.session() as session:
        return [row[0] for row in session.sql(f"SELECT id FROM {dataset} ORDER BY id").rows]


def has_copies(node: RunningNode) -> bool:
    with node.session() as session:
        found = session.network.sharing("trips")
    state = found["state"]
    return state is not None and state["underReplicated"] == 0 and state["held"] == state["objects"]


def listed(node: RunningNode) -> str:
    return platform("datasets", data=node.data).stdout


def test_a_fork_goes_on_after_its_writer_is_gone(tmp_path: Path) -> None:
    with members(tmp_path, "bern", "oslo", "rome") as network:
        bern, oslo, rome = (network[name] for name in ("bern", "oslo", "rome"))
        rows = tmp_path / "trips.csv"
        rows.write_text("id,name\n1,a\n2,b\n")
        platform("put", str(rows), "--wait", "--copy", data=oslo.node.data)
        platform("share", "trips", "--with", "all", "--copies", "3", data=oslo.node.data)
        eventually(lambda: all("trips" in listed(each.node) for each in (bern, rome)))
        eventually(lambda: all(has_copies(each.node) for each in (bern, oslo, rome)))
        oslo.kill()
        refused = platform(
            "sql", "INSERT INTO trips VALUES (3, 'c')", data=rome.node.data, check=False
        )
        assert refused.returncode != 0
        assert "6" not in refused.stdout
        # Forked without the writer, before and after it is removed from the network.
        assert "2 rows" in platform("fork", "trips", "mine", data=rome.node.data).stdout
        platform("net", "revoke", "oslo", "--yes", data=bern.node.data)
        eventually(
            lambda: "oslo was removed" in platform(
                "net", "check", data=rome.node.data, check=False
            ).stdout
        )  # fmt: skip
        check = platform("net", "check", data=rome.node.data, check=False).stdout
        assert "platform fork trips NEW" in check
        assert "2 rows" in platform("fork", "trips", "second", data=bern.node.data).stdout
        platform("sql", "INSERT INTO mine VALUES (3, 'c')", data=rome.node.data)
        platform("share", "mine", "--with", "all", data=rome.node.data)
        eventually(lambda: "mine" in listed(bern.node))
        eventually(lambda: ids(bern.node, "mine") == [1, 2, 3])
        assert ids(bern.node, "second") == ids(rome.node, "trips") == [1, 2]
        # Each node deletes it for itself, and a start that reads all logs does not bring it back.
        platform("datasets", "trips", "--delete", data=rome.node.data)
        rome.kill()
        rome.up()
        assert ids(rome.node, "mine") == [1, 2, 3]
        assert "trips" not in listed(rome.node)
        assert ids(bern.node, "trips") == [1, 2]
