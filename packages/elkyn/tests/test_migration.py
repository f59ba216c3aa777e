"""Import of other databases into a tree, and export."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn import ElkynStore
from elkyn.cli import main
from elkyn.migration.keys import escape_key, unescape_key
from elkyn.migration.redis import connect
from elkyn.tree.paths import key_problem


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(tmp_path / "data")


def tree(data: str) -> Any:
    with ElkynStore(Path(data) / "default") as store:
        return store.get("/")


@given(st.text(max_size=40))
def test_any_key_escapes_to_a_valid_key_and_round_trips(key: str) -> None:
    escaped = escape_key(key)
    assert key_problem(escaped) is None
    assert unescape_key(escaped) == key


def test_keys_stay_apart_and_readable() -> None:
    keys = ["", "%", "a.b", "a%2Eb", "plain", "a/b", "é"]
    assert len({escape_key(key) for key in keys}) == len(keys)
    assert [escape_key("plain"), escape_key("é")] == ["plain", "é"]


def test_priorities_survive_an_export_and_an_import(data: str, tmp_path: Path) -> None:
    file = str(tmp_path / "tree.json")
    value = '{"a": {".value": 1, ".priority": "x"}, "b": {".priority": 2, "c": [1, 2]}}'
    main(["set", "--data", data, "/", value])
    assert main(["export", "--data", data, file]) == 0
    assert json.loads(Path(file).read_text()) == json.loads(value)
    other = f"{data}2"
    assert main(["import", "--data", other, file]) == 0
    with ElkynStore(Path(other) / "default") as store:
        assert store.get("/", export=True) == json.loads(value)


def test_lines_are_keyed_by_a_member_or_pushed(data: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": "a.b", "n": 1}\n\n{"id": 7, "n": 2}\n')
    assert main(["import", "--data", data, "--path", "/rows", "--key", "id", str(file)]) == 0
    assert main(["import", "--data", data, "--path", "/log", str(file)]) == 0
    found = tree(data)
    assert found["rows"] == {"7": {"id": 7, "n": 2}, "a%2Eb": {"id": "a.b", "n": 1}}
    assert [row["n"] for row in found["log"].values()] == [1, 2]


def test_lines_round_trip(data: str, tmp_path: Path) -> None:
    file = str(tmp_path / "out.ndjson")
    main(["set", "--data", data, "/", '{"a": {"x": [1, null, 3]}, "b": "é", "10": true}'])
    assert main(["export", "--data", data, file]) == 0
    assert main(["import", "--data", f"{data}2", file]) == 0
    assert tree(f"{data}2") == tree(data)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [("{", "line 2 is not JSON"), ("[1]", 'line 2 has no string or integer in "id"')],
)
def test_a_bad_line_is_named(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, complaint: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"id": "a"}}\n{line}\n')
    assert main(["import", "--data", data, "--key", "id", str(file)]) == 2
    assert complaint in capsys.readouterr().err


def test_tables_of_sqlite_become_maps(data: str, tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    with closing(sqlite3.connect(file)) as base, base:
        base.execute('CREATE TABLE "users" (id INTEGER PRIMARY KEY, "e.mail" TEXT, photo BLOB)')
        base.execute("INSERT INTO users VALUES (5, 'a@b', x'00ff'), (9, NULL, NULL)")
        base.execute("CREATE TABLE pairs (a TEXT, b INTEGER, PRIMARY KEY (b, a)) WITHOUT ROWID")
        base.execute("INSERT INTO pairs VALUES ('x/y', 1)")
        base.execute("CREATE TABLE bare (n REAL)")
        base.execute("INSERT INTO bare VALUES (1.5)")
    assert main(["import", "--data", data, str(file)]) == 0
    assert tree(data) == {
        "bare": [None, {"n": 1.5}],
        "pairs": {"1,x%2Fy": {"a": "x/y", "b": 1}},
        "users": {"5": {"id": 5, "e%2Email": "a@b", "photo": "AP8="}, "9": {"id": 9}},
    }


def test_a_tree_goes_out_as_tables(data: str, tmp_path: Path) -> None:
    file = tmp_path / "out.sqlite"
    value = {"users": {"a%2Eb": {"n": 1, "tags": ["x"]}, "c": {"m": True}}, "single": 18**16}
    main(["set", "--data", data, "/", json.dumps(value)])
    assert main(["export", "--data", data, str(file)]) == 0
    with closing(sqlite3.connect(file)) as base:
        users = base.execute("SELECT _key, n, tags, m FROM users ORDER BY _key").fetchall()
        single = base.execute("SELECT value FROM single").fetchall()
    assert users == [("a.b", 1, '["x"]', None), ("c", None, None, 1)]
    assert single == [(str(float(18**16)),)] or single == [(float(18**16),)]
    assert main(["export", "--data", data, str(file)]) == 1  # it exists


@pytest.mark.parametrize("name", ["nothing.db", "nothing.json"])
def test_a_file_that_is_not_there_is_named(
    data: str, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["import", "--data", data, name]) == 1
    assert name in capsys.readouterr().err


def test_a_file_that_is_no_database_is_named(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "text.db"
    file.write_text("not a database at all, despite its name" * 50)
    assert main(["import", "--data", data, str(file)]) != 0
    assert str(file) in capsys.readouterr().err


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server here: apt-get install redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    command += ["--bind", "127.0.0.1", "--requirepass", "pass word"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not _answers(port):
            time.sleep(0.02)
        yield f"redis://:pass%20word@127.0.0.1:{port}/3"
        process.terminate()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_keys_of_redis_become_paths_and_go_back(data: str, redis_url: str) -> None:
    with connect(redis_url) as redis:
        redis.set("users:ann:name", "Ann é")
        redis.hset("users:bob", mapping={"name": "Bob", "a.b": "1"})
        redis.rpush("list", "x", "y")
        redis.sadd("set", "m/1", "m2")
        redis.zadd("scores", {"ann": 1.5, "bob": 2})
        redis.mset({f"many:{number}": "v" for number in range(3000)})
    assert main(["import", "--data", data, redis_url]) == 0
    found = tree(data)
    assert len(found.pop("many")) == 3000
    assert found == {
        "list": ["x", "y"],
        "scores": {"ann": 1.5, "bob": 2.0},
        "set": {"m%2F1": True, "m2": True},
        "users": {"ann": {"name": "Ann é"}, "bob": {"a%2Eb": "1", "name": "Bob"}},
    }
    back = redis_url.removesuffix("3") + "4"
    assert main(["export", "--data", data, "--path", "/users", back]) == 0
    with connect(back) as redis:
        assert redis.get("bob:a.b") == b"1"
        assert redis.get("ann:name") == "Ann é".encode()


def test_a_wrong_password_of_redis_is_reported(
    data: str, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", "--data", data, redis_url.replace("pass", "past", 1)]) == 2
    assert "Redis:" in capsys.readouterr().err


def test_an_unreachable_redis_is_reported(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--data", data, "redis://127.0.0.1:1/0"]) == 1
    assert "cannot be reached" in capsys.readouterr().err
