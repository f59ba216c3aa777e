"""What a restarted node finds of a job: results whose lines and files are whole, and no others."""

from pathlib import Path

import pytest

from elytra.service.partial_journal import PartialJournal


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "partials"
    folder.mkdir()
    for index in range(3):
        (folder / f"t{index}-1.arrow").write_bytes(b"x" * 10)
    return folder


def partial(index: int) -> dict[str, object]:
    return {"file": f"t{index}-1.arrow", "bytes": 10, "manifest": {"rowsOut": index}}


def written(outputs: Path, fingerprint: str = "f") -> PartialJournal:
    journal = PartialJournal(outputs.parent, fingerprint, outputs)
    for index in range(3):
        journal.append(f"t{index}", partial(index))
        journal.append(f"t{index}", partial(index))  # a repeated report
    return journal


def read(outputs: Path, fingerprint: str = "f") -> dict[str, dict[str, object]]:
    return PartialJournal(outputs.parent, fingerprint, outputs).read()


def test_a_new_run_of_the_node_finds_the_results(outputs: Path) -> None:
    written(outputs)
    lines = (outputs.parent / "partials.jsonl").read_text().splitlines()

    assert len(lines) == 4
    assert read(outputs) == {f"t{index}": partial(index) for index in range(3)}


def test_a_line_that_was_cut_short_does_not_count_at_any_byte(outputs: Path) -> None:
    written(outputs)
    path = outputs.parent / "partials.jsonl"
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        found = read(outputs)
        assert found == {f"t{index}": partial(index) for index in range(len(found))}


def test_results_of_other_tasks_are_discarded(outputs: Path) -> None:
    written(outputs)

    assert read(outputs, "of another version or other shards") == {}
    assert read(outputs) == {}


@pytest.mark.parametrize("damage", ["missing", "shorter", "elsewhere", "no manifest"])
def test_a_result_without_its_file_is_computed_again(outputs: Path, damage: str) -> None:
    journal = PartialJournal(outputs.parent, "f", outputs)
    entry = partial(0)
    if damage == "missing":
        (outputs / "t0-1.arrow").unlink()
    elif damage == "shorter":
        (outputs / "t0-1.arrow").write_bytes(b"x")
    elif damage == "elsewhere":
        entry["file"] = "../partials/t0-1.arrow"
    else:
        del entry["manifest"]
    journal.append("t0", entry)

    assert read(outputs) == {}


def test_an_ended_job_has_no_journal(outputs: Path) -> None:
    journal = written(outputs)
    journal.remove()
    journal.remove()

    assert read(outputs) == {}


def test_a_disk_that_refuses_the_line_does_not_fail_the_job(outputs: Path) -> None:
    (outputs.parent / "partials.jsonl").mkdir()
    journal = PartialJournal(outputs.parent, "f", outputs)

    journal.append("t0", partial(0))
