"""The `lake` command, run as users run it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lake import Lake

DOCS = Path(__file__).resolve().parents[3] / "docs/lake-cli.md"


def lake(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lake.cli", *arguments],
        input=stdin, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder into which the command has put one file."""
    folder = tmp_path_factory.mktemp("cli")
    file = folder / "trips.csv"
    file.write_text("city,km\nOslo,12.5\nRome,7\n")
    done = lake("put", str(file), "--data", str(folder / "lake"))
    assert (done.returncode, done.stdout) == (0, f"{file} -> trips: 2 rows in all\n"), done.stderr
    return str(folder / "lake")


@pytest.mark.slow
def test_stored_datasets_are_listed_and_described(data: str) -> None:
    assert re.search(r"^trips +2 ", lake("ls", "--data", data).stdout, re.MULTILINE)
    assert "km      Float64" in lake("ls", "trips", "--data", data).stdout
    (listed,) = json.loads(lake("ls", "--data", data, "--json").stdout)
    assert (listed["name"], listed["rows"]) == ("trips", 2)


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "printed"),
    [
        ((), "city  km\nOslo  12.5\nRome  7\n"),
        (("--csv",), "city,km\nOslo,12.5\nRome,7\n"),
        (("--csv", "--engine", "emsqrt"), "city,km\nOslo,12.5\nRome,7\n"),
    ],
)
def test_a_query_is_answered_in_the_requested_format(
    data: str, flags: tuple[str, ...], printed: str
) -> None:
    done = lake("sql", "select * from trips order by city", "--data", data, *flags)
    assert done.stdout.replace("7.0", "7") == printed, done.stderr


@pytest.mark.slow
def test_a_query_may_come_from_standard_input_and_answer_in_json(data: str) -> None:
    done = lake("sql", "-", "--data", data, "--json", stdin="select list_value(km) from trips")
    assert json.loads(done.stdout)["rows"] == [[[12.5]], [[7]]]


@pytest.mark.nightly
def test_a_table_on_screen_is_cut_and_says_so(data: str) -> None:
    done = lake("sql", "select unnest(range(2000)), 'a\nb'", "--data", data)
    assert done.stdout.count("\n") == 1001
    assert re.search(r"^999 +a\\nb$", done.stdout, re.MULTILINE)
    assert "--csv or --json prints all" in done.stderr


@pytest.mark.slow
def test_files_are_added_and_datasets_deleted(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("n\n1\n")
    folder = str(tmp_path / "lake")
    lake("put", str(file), str(file), "--name", "both", "--data", folder)
    with Lake(folder) as opened:
        assert opened.catalog.get("both").rows == 2
    assert lake("rm", "both", "--data", folder).stdout == "deleted both\n"
    again = lake("rm", "both", "--data", folder)
    assert (again.returncode, again.stderr) == (1, 'lake: there is no dataset "both"\n')


@pytest.mark.nightly
def test_verify_finds_a_flipped_bit(tmp_path: Path) -> None:
    folder, file = str(tmp_path / "lake"), tmp_path / "trips.csv"
    file.write_text("city,km\nOslo,12.5\n")
    lake("put", str(file), "--data", folder)
    whole = lake("verify", "--data", folder)
    assert (whole.returncode, "no damage" in whole.stdout) == (0, True), whole.stderr
    with Lake(folder) as opened:
        (shard,) = opened.resolve("trips")[1]
    content = bytearray(shard.read_bytes())
    content[40] ^= 1
    shard.chmod(0o600)
    shard.write_bytes(content)

    found = lake("verify", "trips", "--data", folder)
    assert found.returncode == 1
    assert re.search(r'^dataset "trips": .*shard 0', found.stdout), found.stdout
    (finding,) = json.loads(lake("verify", "--json", "--data", folder).stdout)["findings"]
    assert finding["dataset"] == "trips"


@pytest.mark.slow
@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("ls", "--data", "/nowhere/at/all"), 1, "`lake init --data DIR` creates one"),
        (("put", "/nowhere.csv", "--data", "/nowhere"), 1, "there is no file"),
        (("ls",), 2, "--data"),
        (("verify", "trip", "--data", "DATA"), 1, 'did you mean "trips"'),
        (("sql", "select", "--data", "DATA"), 2, "selection list"),
        (("sql", "copy trips to 'x.csv'", "--data", "DATA"), 1, "lake:"),
        (("sql", "select 1", "--memory", "much", "--data", "DATA"), 2, "much"),
    ],
)
def test_impossible_requests_are_refused_with_a_hint(
    data: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = lake(*(data if each == "DATA" else each for each in arguments))
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_open_in_another_process_is_refused(tmp_path: Path) -> None:
    with Lake(tmp_path):
        done = lake("ls", "--data", str(tmp_path))
    assert done.returncode == 1
    assert "is open in" in done.stderr


@pytest.mark.slow
def test_every_verb_is_documented() -> None:
    page = DOCS.read_text(encoding="utf-8")
    verbs = re.search(r"\{?positional arguments:\n(.*?)\n\n", lake("--help").stdout, re.DOTALL)
    assert verbs is not None
    names = re.findall(r"^    (\w+)\b", verbs[1], re.MULTILINE)
    assert sorted(names) == [
        *("append", "compact", "delete", "diff", "doctor", "expire", "export", "gc", "iceberg"),
        *("init", "ls", "maintenance", "purge", "put", "rejects", "rekey", "rename", "retention"),
        *("rm", "rollback", "scrub", "show", "snapshots", "sql", "stats", "tag", "upsert"),
        "verify",
    ]
    assert re.findall(r"^\| `lake (\w+)", page, re.MULTILINE) == names
    for name in names:
        flags = set(re.findall(r"--[a-z-]+", lake(name, "--help").stdout)) - {"--help"}
        assert flags <= set(re.findall(r"--[a-z-]+", page)), name


def test_the_version_is_reported_without_loading_an_engine() -> None:
    assert re.fullmatch(r"lake \d+\.\d+\.\d+\n", lake("--version").stdout)
    code = "import sys; import lake.cli; print({'pyarrow', 'duckdb', 'numpy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.mark.slow
def test_a_dataset_is_changed_and_rolled_back(tmp_path: Path) -> None:
    folder = ("--data", str(tmp_path / "lake"))
    assert "is a lake" in lake("init", *folder).stdout
    assert lake("sql", "CREATE TABLE t AS FROM range(5) r(a)", *folder).stdout.split() == [
        "Count",
        "5",
    ]
    assert lake("sql", "DELETE FROM t WHERE a > 1", *folder).returncode == 0

    listed = lake("snapshots", "t", *folder).stdout.splitlines()
    back = lake("rollback", "t", "1", *folder)

    assert [line.split()[0] for line in listed] == ["version", "2", "1"]
    assert "DELETE FROM t" in listed[1]
    assert back.stdout == "t: version 3 has the 5 rows of 1\n"
    counted = lake("sql", "SELECT count(*) AS n FROM t AT (VERSION => 3)", "--csv", *folder)
    assert counted.stdout.split() == ["n", "5"]
    missing = lake("rollback", "t", "9", *folder)
    assert missing.returncode == 1
    assert "there are versions 1 to 3" in missing.stderr


@pytest.mark.nightly  # a node of its own; the routes have tests in the plain run
def test_versions_are_compared_tagged_and_expired(tmp_path: Path) -> None:
    folder = ("--data", str(tmp_path / "lake"))
    lake("init", *folder)
    for statement in ("CREATE TABLE t AS SELECT 1 AS a", "INSERT INTO t VALUES (2)"):
        assert lake("sql", statement, *folder).returncode == 0

    assert lake("diff", "t", "1", "--csv", *folder).stdout.split() == ["change,a", "insert,2"]
    assert lake("tag", "t", "first", "1", *folder).stdout.split() == [
        "tag",
        "version",
        "first",
        "1",
    ]
    assert lake("diff", "t", "first", *folder).stdout.split() == ["change", "a", "insert", "2"]
    assert lake("expire", "t", *folder).stdout == "0 snapshots of t expired\n"
    assert lake("tag", "t", "first", "--delete", *folder).stdout.split() == ["tag", "version"]
    assert lake("expire", "t", "--days", "0", *folder).stdout == "1 snapshots of t expired\n"
    assert lake("compact", *folder).stdout == "t: 2 shards became 1\n"
    assert lake("rename", "t", "u", *folder).stdout == "t is u now\n"
    assert "needs a version" in lake("tag", "u", "x", *folder).stderr
    assert lake("diff", "u", "nosuch", *folder).returncode == 1


@pytest.mark.nightly  # a node of its own; the routes have tests in the plain run
def test_rows_are_purged_from_every_version(tmp_path: Path) -> None:
    folder = ("--data", str(tmp_path / "lake"))
    lake("init", *folder)
    lake("sql", "CREATE TABLE t AS FROM range(5) r(a)", *folder)
    lake("sql", "DELETE FROM t WHERE a = 4", *folder)

    asked = lake("purge", "t", "a >= 3", *folder, stdin="y\n")
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    done = lake("purge", "t", "a >= 3", "--yes", *folder)
    assert done.stdout == ("1 rows left t, 3 in all its versions; 2 shards were written anew\n"), (
        done.stderr
    )
    for version, rows in ((1, "3"), (2, "3")):
        query = f"SELECT count(*) AS n FROM t AT (VERSION => {version})"
        assert lake("sql", query, "--csv", *folder).stdout.split() == ["n", rows]
    assert lake("purge", "t", "a >= 3; DROP TABLE t", "--yes", *folder).returncode == 2


@pytest.mark.nightly  # a node of its own; the routes have tests in the plain run
def test_a_retention_rule_is_set_and_maintenance_follows_it(tmp_path: Path) -> None:
    folder = ("--data", str(tmp_path / "lake"))
    lake("init", *folder)
    for statement in ("CREATE TABLE t AS SELECT 1 AS a", "INSERT INTO t VALUES (2)"):
        lake("sql", statement, *folder)

    assert lake("retention", "t", *folder).stdout == "every version of t stays\n"
    assert "--keep" in lake("retention", "t", "--days", "3", *folder).stderr
    assert "the newest 1 stay" in lake("retention", "t", "--keep", "1", *folder).stdout
    assert lake("maintenance", "run", "expire", *folder).stdout == "expire: 1 changed, 0 skipped\n"
    assert len(json.loads(lake("snapshots", "t", "--json", *folder).stdout)) == 1
    tasks = {
        each["task"]: each for each in json.loads(lake("maintenance", "--json", *folder).stdout)
    }
    assert tasks["expire"]["changed"] == 1
    assert "expire" in lake("maintenance", *folder).stdout
    assert lake("maintenance", "run", "nosuch", *folder).returncode == 1
    assert lake("maintenance", "run", *folder).returncode == 2
    assert lake("retention", "t", "--clear", *folder).stdout == "every version of t stays\n"


@pytest.mark.slow
def test_a_file_is_put_with_a_layout_and_read_through_a_view(tmp_path: Path) -> None:
    folder = ("--data", str(tmp_path / "lake"))
    file = tmp_path / "rides.csv"
    file.write_text("country,km\nno,3\nit,5\nno,9\n")
    layout = ("--partition-by", "country", "--sort-by", "km DESC")
    assert lake("put", str(file), *layout, *folder).returncode == 0
    lake("sql", "CREATE VIEW far AS SELECT * FROM rides WHERE km > 4", *folder)

    (stored,) = json.loads(lake("ls", "--json", *folder).stdout)
    assert stored["shards"] == 2
    listed = lake("ls", *folder).stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["name", "rides", "far"]
    (view,) = json.loads(lake("ls", "--views", "--json", *folder).stdout)
    assert (view["name"], view["reads"]) == ("far", ["rides"])
    assert "WHERE" in lake("ls", "--views", *folder).stdout.upper()
    (first,) = json.loads(lake("snapshots", "rides", "--json", *folder).stdout)
    assert first["provenance"]["engine"] == "sennit"
    assert first["signedBy"]
