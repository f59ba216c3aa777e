"""Statements that other nodes send: each sees one dataset, and is the one that DuckDB parses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from elkyn.records import Change
from lake import Lake
from lake.distributed.foreign_statements import ForeignChanges
from lake.distributed.receipts import Receipt, Receipts
from lake.distributed.remote_shards import ForeignChange
from lake.peers.transport.stop import Stop
from lake.statements import mentions
from lake.statements.limits import Requester
from sennit_core.errors import Denied, SennitError

HIDING = """--\rINSERT INTO trips SELECT 0, '
BEGIN; INSERT INTO trips SELECT id, name FROM secret; {} COMMIT; --'"""
"""One INSERT of a text, to DuckDB: a comment ends at a carriage return too."""


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with Lake(tmp_path / "lake", memory_bytes="256 MiB") as found:
        found.append("trips", pa.table({"id": [1], "name": ["a"]}))
        found.append("secret", pa.table({"id": [7], "name": ["hidden"]}))
        yield found


def change(lake: Lake, sql: str, key: str = "key") -> int:
    """Make a change for a user of another node."""
    dataset = lake.catalog.get("trips").id
    user = Requester("eve", role="writer", node="e" * 64)

    receipts = Receipts(lake.tree, lake.catalog.writing)

    def receipt(count: int, _size: int) -> Sequence[Change]:
        return [receipts.change(key, Receipt(dataset, "", count, 1e12))]

    return (
        ForeignChanges(lake)
        .run(ForeignChange(dataset, "trips", sql, "", user, 30.0), receipt, Stop())
        .count
    )


@pytest.mark.parametrize("more", ["", "DELETE FROM secret;", "DROP TABLE secret;"])
@pytest.mark.parametrize("ends", ["[\r\n]", "\n"])
def test_no_text_of_another_node_is_a_script(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, more: str, ends: str
) -> None:
    """Also if what cuts scripts sees a comment that ends later than it does for DuckDB."""
    monkeypatch.setattr(mentions, "_END_OF_LINE", re.compile(ends))
    try:
        change(lake, HIDING.format(more))
    except SennitError:
        assert ends == "\n"  # its verb seems to be BEGIN
    assert lake.sql("SELECT count(*) FROM trips WHERE name = 'hidden'").rows == [(0,)]
    assert lake.sql("SELECT count(*) FROM secret").rows == [(1,)]


def test_a_transaction_of_another_node_is_refused(lake: Lake) -> None:
    with pytest.raises(SennitError):
        change(lake, "BEGIN; INSERT INTO trips SELECT * FROM secret; COMMIT")
    assert lake.sql("SELECT count(*) FROM trips").rows == [(1,)]


def test_a_change_that_has_a_receipt_is_not_made_again(lake: Lake) -> None:
    """A run of a network that was left may end after a repetition has begun in the next one."""
    sql = "INSERT INTO trips VALUES (2, 'b')"
    assert change(lake, sql) == 1
    with pytest.raises(Denied, match="twice"):
        change(lake, sql)
    assert change(lake, sql, "another") == 1
    assert lake.sql("SELECT count(*) FROM trips").rows == [(3,)]


def test_a_receipt_of_no_change_does_not_replace_that_of_one(lake: Lake) -> None:
    receipts = Receipts(lake.tree, lake.catalog.writing)
    made, nothing = Receipt("d", "", 1, 1e12), Receipt("d", "", 0, 1e12)
    assert receipts.put("key", made) == made
    assert receipts.put("key", nothing) == made
    assert receipts.find("key") == made
