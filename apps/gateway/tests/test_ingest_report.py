"""The lines that `platform put` prints: complete, folded, and harmless to a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from elytra.client.ingest_report import IngestedDataset, IngestReport
from sennit.cli.ingest_report import report_lines
from sennit_core.schema import Schema


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def dataset(report: dict[str, Any], columns: int = 2, **source: Any) -> IngestedDataset:
    schema = Schema.of(**{f"column_{index + 1}": "Int64" for index in range(columns)})
    ingest = {"name": "f.csv", "source": {"format": "csv", "bytes": 10, **source}, "report": report}
    return IngestedDataset(
        id="d", name="f", owner="", schema=schema, rows=1, ingest=IngestReport.from_json(ingest)
    )


def test_a_report_says_what_was_found_and_changed() -> None:
    report = {
        "widened": [{"column": "a", "line": 3, "value": "x", "from": "Int64", "to": "Utf8"}],
        "renamed": [{"column": 1, "from": "", "to": "column_2"}],
        "notes": [{"column": "b", "line": 1200, "note": "kept as text"}],
    }

    shown = list(report_lines(dataset(report, delimiter="\t", header=False, encoding="utf-8")))

    assert shown == [
        "f: 1 row, 2 columns",
        "  read as  CSV, delimiter tab, no header, utf-8, 10 B",
        "  columns  column_1 Int64, column_2 Int64",
        "  widened  a: Int64 to Utf8, line 3, value 'x'",
        "  renamed  column 2: '' to 'column_2'",
        "  note     b: kept as text, line 1,200",
    ]


def test_a_wide_or_much_changed_dataset_is_summarized() -> None:
    notes = [{"column": None, "line": None, "note": f"{'long ' * 30}{n}"} for n in range(40)]

    shown = list(report_lines(dataset({"notes": notes}, columns=5_000)))

    assert len(shown) < 50
    assert max(len(line) for text in shown for line in text.split("\n")) <= 80
    assert "… 5,000 in all" in " ".join(shown[2].split())
    assert "… 40; --json has all" in shown[-1]


def test_control_characters_of_a_file_do_not_reach_the_terminal() -> None:
    report = {
        "widened": [{"column": "a", "value": "\x1b[2J", "from": "Int64", "to": "Utf8"}],
        "notes": [{"note": "above the table, not read: \x1b]0;title\x07"}],
    }

    assert "\x1b" not in "".join(report_lines(dataset(report)))


def test_a_dataset_without_a_report_has_its_columns() -> None:
    computed = IngestedDataset(id="d", name="f", owner="", schema=Schema.of(a="Int64"), rows=0)

    assert list(report_lines(computed)) == ["f: 0 rows, 1 column", "  columns  a Int64"]


def test_missing_tree_values_are_empty() -> None:
    """A tree keeps no empty lists, and a newer node may say more."""
    report = IngestReport.from_json({"name": "f", "source": {"format": "csv", "new": 1}})

    assert (report.widened, report.renamed, report.notes) == ((), (), ())
