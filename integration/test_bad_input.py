"""What users really send: every refusal says what, where and what next; nothing is half visible."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nodes import RunningNode, platform


def put(
    node: RunningNode, tmp_path: Path, content: str | bytes, name: str = "bad.csv", *flags: str
) -> Any:
    source = tmp_path / name
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    return platform("put", str(source), *flags, "--json", data=node.data, check=False)


def refused(done: Any, *words: str, status: int = 2) -> Any:
    error = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == status, error
    text = json.dumps(error).lower()
    for word in words:
        assert word.lower() in text, error
    return error


@pytest.fixture(autouse=True)
def _leaves_no_dataset(node: RunningNode) -> Iterator[Any]:
    yield
    with node.session() as session:
        for dataset in session.datasets():
            session.delete(dataset.name)


def names(node: RunningNode) -> Any:
    with node.session() as session:
        return [dataset.name for dataset in session.datasets()]


def test_an_empty_file_is_refused(node: RunningNode, tmp_path: Path) -> None:
    refused(put(node, tmp_path, b""), "empty")
    assert names(node) == []


@pytest.mark.nightly
def test_a_header_alone_is_a_dataset_without_rows(node: RunningNode, tmp_path: Path) -> None:
    (dataset,) = json.loads(put(node, tmp_path, "a,b\n").stdout)
    assert dataset["rows"] == 0
    with node.session() as session:
        assert session.sql("select count(*) from bad").rows[0][0] == 0


def test_a_ragged_row_names_its_line_and_offset(node: RunningNode, tmp_path: Path) -> None:
    error = refused(put(node, tmp_path, "a,b\n1,2\n3,4,5\n6,7\n"), "3")
    assert error["details"]["line"] == 3
    assert error["details"]["byteOffset"] == 8
    assert names(node) == []


@pytest.mark.nightly
def test_duplicate_columns_are_made_unique_or_refused_when_strict(
    node: RunningNode, tmp_path: Path
) -> None:
    (dataset,) = json.loads(put(node, tmp_path, "a,a\n1,2\n").stdout)
    columns = [field["name"] for field in dataset["schema"]["fields"]]
    assert len(set(columns)) == 2
    refused(put(node, tmp_path, "a,a\n1,2\n", "strict.csv", "--strict"), "a", "duplicate")


@pytest.mark.slow
def test_the_wrong_delimiter_is_sniffed(node: RunningNode, tmp_path: Path) -> None:
    (dataset,) = json.loads(put(node, tmp_path, "a;b;c\n1;2,5;x\n3;4,5;y\n").stdout)
    assert [field["name"] for field in dataset["schema"]["fields"]] == ["a", "b", "c"]
    with node.session() as session:
        assert session.sql("select sum(b) from bad").rows[0][0] == pytest.approx(7.0)


@pytest.mark.sample(2)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"])
def test_encodings_are_found_out(node: RunningNode, tmp_path: Path, encoding: str) -> None:
    text = "name,n\nZoë,1\nJosé,2\n"
    content = text.encode(encoding)
    if encoding == "utf-16-be":
        content = b"\xfe\xff" + content
    assert put(node, tmp_path, content).returncode == 0
    with node.session() as session:
        assert session.sql("select name from bad order by n").rows == [("Zoë",), ("José",)]


@pytest.mark.nightly
def test_an_unexpected_later_value_widens_the_column_and_strict_fails(
    node: RunningNode, tmp_path: Path
) -> None:
    rows = "".join(f"{i},{i}\n" for i in range(200_000))
    content = f"id,n\n{rows}200000,twelve\n"
    (dataset,) = json.loads(put(node, tmp_path, content).stdout)
    types = {field["name"]: field["type"] for field in dataset["schema"]["fields"]}
    assert (types["id"], types["n"], dataset["rows"]) == ("Int64", "Utf8", 200_001)
    error = refused(put(node, tmp_path, content, "strict.csv", "--strict"), "twelve")
    assert error["details"]["line"] == 200_002


@pytest.mark.nightly
def test_a_line_without_end_is_capped(node: RunningNode, tmp_path: Path) -> None:
    source = tmp_path / "endless.csv"
    with source.open("wb") as file:
        file.write(b"a,b\n1,")
        for _ in range(80):
            file.write(b"x" * (1 << 20))
    done = platform("put", str(source), "--json", data=node.data, check=False)
    refused(done, "record", "4")
    assert names(node) == []


@pytest.mark.nightly
def test_a_name_in_use_is_refused_with_a_hint(node: RunningNode, tmp_path: Path) -> None:
    assert put(node, tmp_path, "a\n1\n").returncode == 0
    refused(put(node, tmp_path, "a\n2\n"), "replace", status=5)
    assert put(node, tmp_path, "a\n2\n3\n", "bad.csv", "--mode", "replace").returncode == 0
    with node.session() as session:
        assert session.sql("select count(*) from bad").rows[0][0] == 2


# Parts, by the HTTP protocol


def start(node: RunningNode, name: str, size: int, **more: Any) -> Any:
    body = {"name": name, "size": size, **more}
    answer = httpx.post(f"{node.url}/api/start-upload", json=body, headers=node.headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def send(
    node: RunningNode, upload: str, index: int, content: bytes, digest: str | None = None
) -> Any:
    headers = {**node.headers, "x-sha256": digest or hashlib.sha256(content).hexdigest()}
    return httpx.put(
        f"{node.url}/api/uploads/{upload}/parts/{index}", content=content, headers=headers
    )


def complete(node: RunningNode, upload: str) -> Any:
    return httpx.post(f"{node.url}/api/uploads/{upload}/complete", headers=node.headers)


def test_a_part_that_does_not_match_its_hash_is_refused(node: RunningNode) -> None:
    upload = start(node, "parts", 4)["uploadId"]
    answer = send(node, upload, 0, b"a\n1\n", "0" * 64)
    assert answer.status_code == 400, answer.text
    assert hashlib.sha256(b"a\n1\n").hexdigest() in json.dumps(answer.json())
    httpx.delete(f"{node.url}/api/uploads/{upload}", headers=node.headers)


def test_completing_without_a_part_names_the_missing_one(node: RunningNode) -> None:
    started = start(node, "parts", 3 << 20, partBytes=1 << 20)
    upload = started["uploadId"]
    for index in (0, 2):
        assert send(node, upload, index, b"x" * (1 << 20)).status_code == 200
    answer = complete(node, upload)
    assert answer.status_code == 409
    assert answer.json()["details"]["missing"] == [1]
    httpx.delete(f"{node.url}/api/uploads/{upload}", headers=node.headers)


def test_the_same_part_twice_is_one_part(node: RunningNode) -> None:
    content = b"a\n1\n2\n"
    upload = start(node, "duplicate", len(content))["uploadId"]
    assert send(node, upload, 0, content).status_code == 200
    assert send(node, upload, 0, content).status_code == 200
    assert send(node, upload, 0, b"a\n9\n9\n").status_code == 409
    assert complete(node, upload).status_code == 200


# Questions


def ask(node: RunningNode, sql: str, **more: Any) -> Any:
    return httpx.post(f"{node.url}/api/query", json={"sql": sql, **more}, headers=node.headers)


def test_a_syntax_error_names_its_place(node: RunningNode) -> None:
    answer = ask(node, "select 1,\n  from where")
    assert answer.status_code == 400
    assert answer.json()["code"] == "sql"
    assert answer.json()["details"]["line"] == 2


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from read_text('/etc/passwd')",
        "select * from glob('/etc/*')",
        "copy (select 1) to '/tmp/out.csv'",
        "attach '/tmp/x.db'",
        "install httpfs",
        "set enable_external_access = true",
        "create table t as select * from read_text('/etc/passwd')",
        "select 1; attach '/tmp/x.db'",
        "select getenv('HOME')",
        "pragma database_list",
    ],
)
def test_sql_reaches_nothing_but_the_shards(node: RunningNode, sql: str) -> None:
    answer = ask(node, sql)
    assert answer.status_code in {400, 403}, answer.text
    assert "root:" not in answer.text


def test_an_unknown_column_in_sql_names_the_nearest(node: RunningNode, tmp_path: Path) -> None:
    put(node, tmp_path, "distance,carrier\n1,x\n")
    answer = ask(node, "select distence from bad")
    assert answer.status_code == 400
    assert "distance" in answer.text


@pytest.mark.nightly
def test_an_unknown_column_in_a_pipeline_names_the_nearest(
    node: RunningNode, tmp_path: Path
) -> None:
    put(node, tmp_path, "distance,carrier\n1,x\n")
    done = platform("run", "bad", "--where", "distence > 1", "--json", data=node.data, check=False)
    refused(done, "distence", "distance")


@pytest.mark.nightly
def test_a_cap_that_cannot_work_is_refused(node: RunningNode, tmp_path: Path) -> None:
    put(node, tmp_path, "distance,carrier\n1,x\n")
    arguments = ("run", "bad", "--group-by", "carrier", "--agg", "n=count()", "--mem-cap", "1MiB")
    refused(platform(*arguments, "--json", data=node.data, check=False), "cap", status=6)


@pytest.mark.slow
def test_a_cancelled_job_says_so(node: RunningNode, tmp_path: Path) -> None:
    rows = "".join(f"{i},{i % 7}\n" for i in range(100_000))
    put(node, tmp_path, f"n,k\n{rows}")
    with node.session() as session:
        job = session.pipeline("bad").group_by("n").agg(k="max(k)").submit()
        job.cancel()
        *_, info = job.watch()
        assert info.state in {"cancelled", "done"}
