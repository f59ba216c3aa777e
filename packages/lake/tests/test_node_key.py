"""The node's private key among the encrypted keys of the lake."""

from __future__ import annotations

from pathlib import Path

import pytest

from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.catalog.node_key import NodeKey
from lake.encryption.keys import KeyRing, read_secret
from sennit_core.errors import Corrupt, Denied

PASSPHRASE = "a passphrase of many words"


def ring(folder: Path, passphrase: str | None = PASSPHRASE) -> KeyRing:
    return KeyRing(folder / "keys.json", read_secret(passphrase=passphrase))


def test_a_key_is_moved_to_the_encrypted_ones_and_stays_there(tmp_path: Path) -> None:
    file = tmp_path / "node.key"
    plain = NodeKey(file, ring(tmp_path))
    signature, private = plain.sign(b"d", b"x"), file.read_bytes()

    assert NodeKey(file, ring(tmp_path), encrypt=True).sign(b"d", b"x") == signature
    assert not file.exists()
    assert private.hex() not in (tmp_path / "keys.json").read_text()
    assert NodeKey(file, ring(tmp_path), encrypt=False).id == plain.id
    assert not file.exists()


def test_a_new_key_is_never_in_a_file_of_its_own(tmp_path: Path) -> None:
    made = NodeKey(tmp_path / "node.key", ring(tmp_path), encrypt=True)
    assert NodeKey(tmp_path / "node.key", ring(tmp_path)).id == made.id
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


def test_a_crash_between_both_places_leaves_one_key(tmp_path: Path) -> None:
    file = tmp_path / "node.key"
    id_ = NodeKey(file).id
    ring(tmp_path).put("node:key", file.read_bytes(), "test it")

    assert NodeKey(file, ring(tmp_path), encrypt=True).id == id_
    assert not file.exists()


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    id_ = NodeKey(tmp_path / "node.key", ring(tmp_path), encrypt=True).id
    other = read_secret(passphrase="quite another passphrase")
    assert other is not None
    ring(tmp_path).rotate(other)

    with pytest.raises(Denied, match="the node's key, which is encrypted"):
        NodeKey(tmp_path / "node.key", ring(tmp_path, None)).sign(b"", b"")
    assert not (tmp_path / "node.key").exists()
    assert NodeKey(tmp_path / "node.key", ring(tmp_path, "quite another passphrase")).id == id_


def test_a_damaged_entry_makes_no_new_identity(tmp_path: Path) -> None:
    assert NodeKey(tmp_path / "node.key", ring(tmp_path), encrypt=True).id
    text = (tmp_path / "keys.json").read_text()
    place = text.index('"node:key":"') + 50
    changed = "0" if text[place] != "0" else "1"
    (tmp_path / "keys.json").write_text(text[:place] + changed + text[place + 1 :])

    with pytest.raises(Corrupt, match="the node's key"):
        NodeKey(tmp_path / "node.key", ring(tmp_path), encrypt=True).sign(b"", b"")
    assert not (tmp_path / "node.key").exists()


def test_a_lake_whose_key_is_locked_is_read_and_not_changed(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    with Lake(tmp_path / "data", pool=pool, passphrase=PASSPHRASE, encrypt_node_key=True) as lake:
        lake.sql("CREATE TABLE t AS SELECT 1 AS a")
        id_ = lake.storage.node_key.id
    with Lake(tmp_path / "data", pool=pool) as lake:
        assert lake.sql("SELECT a FROM t").value == 1
        with pytest.raises(Denied, match="the node's key, which is encrypted"):
            lake.sql("INSERT INTO t VALUES (2)")
    with Lake(tmp_path / "data", pool=pool, passphrase=PASSPHRASE) as lake:
        lake.sql("INSERT INTO t VALUES (3)")
        assert lake.storage.node_key.id == id_
        assert lake.sql("SELECT sum(a) FROM t").value == 4
        assert lake.verify().findings == ()
