"""The verbs of the `lake` command that show, add, merge and delete rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lake.cli import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """The option of a folder with the dataset `my trips`."""
    folder = ["--data", str(tmp_path / "lake")]
    file = tmp_path / "t.csv"
    file.write_text("id,city\n1,Oslo\n2,Rome\n3,Bern\n")
    assert main(["put", str(file), "--name", "my trips", *folder]) == 0
    return folder


def run(capsys: Captured, *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.slow
def test_the_first_rows_are_shown(data: list[str], capsys: Captured) -> None:
    code, out, err = run(capsys, "show", "MY trips", "-n", "2", *data)
    assert (code, out) == (0, "id  city\n1   Oslo\n2   Rome\n")
    assert "2 of 3 rows" in err
    assert json.loads(run(capsys, "show", "my trips", "--json", *data)[1])["rows"][2] == [3, "Bern"]
    assert run(capsys, "show", "my trips", "-n", "-1", *data)[0] == 2
    assert 'did you mean "my trips"' in run(capsys, "show", "my trip", *data)[2]


@pytest.mark.slow
def test_files_are_merged_by_key(data: list[str], tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "new.csv"
    file.write_text("id,city\n3,Basel\n4,Lima\n")
    code, out, _ = run(capsys, "upsert", "my trips", str(file), "--key", "id", *data)
    assert (code, out) == (0, f"{file} -> my trips: 4 rows in all\n")
    assert run(capsys, "show", "my trips", "--csv", *data)[1].split()[-2:] == ["3,Basel", "4,Lima"]

    for verb in (["upsert", "new"], ["put", "--name", "new"]):  # created, then merged
        code, out, _ = run(capsys, *verb, str(file), "--key", "id", *data)
        assert (code, out) == (0, f"{file} -> new: 2 rows in all\n")

    file.write_text("id,city\n3,Basel\n3,Lima\n")
    code, _, err = run(capsys, "upsert", "my trips", str(file), "--key", "id", *data)
    assert code == 2
    assert "rows 1 and 2 have the same key, id = 3" in err
    assert "hint: keep one row of each key" in err


@pytest.mark.slow
def test_files_are_appended_to_what_exists(
    data: list[str], tmp_path: Path, capsys: Captured
) -> None:
    file = tmp_path / "new.csv"
    file.write_text("id,city\n3,Basel\n")
    assert run(capsys, "append", "my trips", str(file), *data)[1].endswith(": 4 rows in all\n")
    code, _, err = run(capsys, "append", "my tripz", str(file), *data)
    assert (code, 'did you mean "my trips"' in err) == (1, True)
    assert "there is no file" in run(capsys, "append", "my trips", "no.csv", *data)[2]
    assert len(json.loads(run(capsys, "ls", "--json", *data)[1])) == 1


@pytest.mark.slow
def test_rows_are_deleted_by_a_condition(data: list[str], capsys: Captured) -> None:
    counted = run(capsys, "delete", "my trips", "id > 1 -- most", "--dry-run", *data)[1]
    assert counted == "2 rows would be deleted from my trips: 3 rows in all\n"
    for hostile in ("", "id = 1); DROP TABLE t; --", "nosuch = 1", "id = 1) RETURNING (id"):
        assert run(capsys, "delete", "my trips", hostile, *data)[0] != 0
    deleted = json.loads(run(capsys, "delete", "my trips", "id > 1", "--json", *data)[1])
    assert deleted == {"deleted": 2, "matching": 2, "rows": 1}
