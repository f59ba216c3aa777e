"""Each snapshot says where it comes from and is signed by its node; a change of that is damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.catalog.node_key import NodeKey, check_signature, node_id, signer_of
from lake.catalog.origins import snapshot_document
from sennit_core.errors import Corrupt, Denied
from sennit_core.hashing import canonical_json

from .served_lake import Client, make_app
from .test_encryption import opened

CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "author": lambda document: document["snapshot"].update(author="somebody"),
    "statement": lambda document: document["snapshot"].update(query="SELECT 2"),
    "inputs": lambda document: document["snapshot"].update(inputs=["a" * 26]),
    "rows": lambda document: document["snapshot"]["shards"][0].update(rows=7),
    "time": lambda document: document.update(createdAt=1.0),
    "engine": lambda document: document["provenance"].update(engineVersion="1"),
    "provenance": lambda document: document.update(provenance=None),
    "signature": lambda document: document["snapshot"].update(
        signature=document["snapshot"]["signature"][:-1] + "g"
    ),
    "another key": lambda document: document["snapshot"].update(
        signature="ed25519:" + "0" * 64 + document["snapshot"]["signature"][72:]
    ),
}


def stored_manifest(lake: Lake, dataset: str = "t") -> dict[str, Any]:
    """The newest manifest as it is on the disk."""
    info = lake.catalog.get(dataset)
    row = lake.catalog._rows.snapshots(info.id).all()[info.head or ""]
    found: dict[str, Any] = json.loads(b"".join(lake.objects.read(row.manifest)))
    return found


def replace_manifest(lake: Lake, document: dict[str, Any]) -> None:
    """Store another manifest under its right id, and let the catalog name that."""
    name = lake.objects.put_bytes(canonical_json(document)).object
    info = lake.catalog.get("t")
    table = lake.catalog._rows.snapshots(info.id)
    row = table.all()[info.head or ""]
    lake.catalog._rows.write(table.change(info.head or "", replace(row, manifest=name)))
    lake.catalog.reload()


def test_a_statement_is_recorded_with_what_it_read(flights: Lake) -> None:
    flights.sql("CREATE TABLE u (a BIGINT)")
    flights.sql("INSERT INTO u VALUES (1)")
    statement = "CREATE TABLE t AS SELECT carrier, u.a FROM flights, u AT (VERSION => 2)"
    with flights.run(statement, user="ada") as execution:
        execution.result()

    found = flights.catalog.stored_manifest("t")

    assert (found.snapshot.author, found.snapshot.query) == ("ada", statement)
    assert found.provenance is not None
    assert {(each.name, each.version) for each in found.provenance.inputs} == {
        ("flights", 1),
        ("u", 2),
    }
    assert {each.snapshot for each in found.provenance.inputs} == set(found.snapshot.inputs)
    assert found.provenance.engine == "duckdb"
    assert found.provenance.engine_version.count(".") == 2


def test_every_kind_of_change_is_signed_by_the_node(flights: Lake) -> None:
    flights.sql("CREATE TABLE t AS SELECT 1 AS a")
    flights.sql("INSERT INTO t VALUES (2)")
    flights.sql("UPDATE t SET a = 3 WHERE a = 2")
    flights.sql("ALTER TABLE t ADD COLUMN b BIGINT")
    flights.rollback("t", 1)
    flights.compact("t")

    found = [*flights.catalog.snapshots("t"), *flights.catalog.snapshots("flights")]

    assert len(found) >= 6
    for each in found:
        assert each.provenance is not None
        assert snapshot_document(each)["signedBy"] == flights.storage.node_key.id


def test_the_key_is_private_and_stays(flights: Lake) -> None:
    path = flights.folder / "lake" / "node.key"

    assert path.stat().st_mode & 0o777 == 0o600
    assert NodeKey(path).id == flights.storage.node_key.id
    assert NodeKey(path).sign(b"d", b"x") == flights.storage.node_key.sign(b"d", b"x")


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_manifest_is_damage_even_under_its_right_id(flights: Lake, change: str) -> None:
    flights.sql("CREATE TABLE t AS SELECT 1 AS a")
    document = stored_manifest(flights)
    CHANGES[change](document)
    replace_manifest(flights, document)

    with pytest.raises(Corrupt, match=r'"t".*signature'):
        flights.sql("FROM t")

    (finding,) = flights.verify("t").findings
    assert "signature" in finding.problem
    assert flights.sql("SELECT count(*) FROM flights").value == 4


def test_a_manifest_of_an_earlier_version_is_read_as_unsigned(flights: Lake) -> None:
    flights.sql("CREATE TABLE t AS SELECT 1 AS a")
    document = stored_manifest(flights)
    del document["snapshot"]["signature"]
    del document["provenance"]
    replace_manifest(flights, document)

    assert flights.sql("FROM t").rows == [(1,)]
    (found,) = flights.catalog.snapshots("t")
    shown = snapshot_document(found)
    assert (shown["provenance"], shown["signedBy"]) == (None, None)
    flights.sql("INSERT INTO t VALUES (2)")
    assert snapshot_document(flights.catalog.stored_manifest("t"))["signedBy"] is not None


def test_the_text_of_a_statement_that_reads_encrypted_data_is_not_stored(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    with opened(tmp_path / "data", pool) as lake:
        lake.append("secret", pa.table({"a": ["hidden-1"]}), encrypt=True)
        lake.sql("INSERT INTO secret SELECT a || 'x' FROM secret WHERE a <> 'hidden-2'")

        assert lake.catalog.stored_manifest("secret").snapshot.query == "INSERT"
        manifests = [b"".join(lake.objects.read(name)) for name in lake.objects]
        assert not any(b"hidden-" in each for each in manifests)


def test_the_route_shows_where_a_snapshot_comes_from(flights: Lake) -> None:
    flights.sql("CREATE TABLE t AS SELECT carrier FROM flights")

    (shown,) = Client(make_app(flights)).get("/api/datasets/t/snapshots").json()

    assert shown["signedBy"] == flights.storage.node_key.id
    assert shown["provenance"]["inputs"][0]["name"] == "flights"
    assert shown["query"] == "CREATE TABLE t AS SELECT carrier FROM flights"


@given(data=st.binary(max_size=300), place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_bit_of_a_signature_can_change(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, place: int, bit: int
) -> None:
    key = NodeKey(tmp_path_factory.getbasetemp() / "a.key")
    signature = key.sign(b"d", data)
    raw = bytearray(signature.encode())
    raw[place % len(raw)] ^= 1 << bit
    changed = raw.decode("latin-1")

    assert check_signature(signature, b"d", data)
    assert not check_signature(changed, b"d", data)
    assert not check_signature(signature, b"e", data)
    assert not check_signature(signature, b"d", data + b"x")
    assert signer_of(signature) == key.id == node_id(bytes.fromhex(signature.split(":")[1]))


def test_a_key_that_others_can_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(bytes(32))
    path.chmod(0o640)
    with pytest.raises(Denied, match="other accounts"):
        NodeKey(path).sign(b"", b"")

    path.chmod(0o600)
    path.write_bytes(bytes(31))
    with pytest.raises(Corrupt, match="node's key"):
        NodeKey(path).sign(b"", b"")
