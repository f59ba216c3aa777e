"""What notebooks and terminals show: bounded tables, plans, progress."""

import io
from typing import Any

import pyarrow as pa
import pytest

from elytra.client.progress_bar import bar_html, bar_text, follow, fraction_done
from elytra.client.result import Result
from elytra.pipelines.pipeline import Pipeline
from sennit_core.records import JobInfo, Progress


def job(state: Any, progress: Progress | None = None) -> JobInfo:
    return JobInfo("j", "plan", None, None, "auto", state, progress, "", 0.0)


def test_a_result_is_a_bounded_escaped_table() -> None:
    table = pa.table({"<b>": ["<script>"] * 100, "n": [None, *range(99)]})

    html = Result(table)._repr_html_()

    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<tr>") == 21
    assert "NULL" in html
    assert "100 rows, the first 20 are shown" in html


@pytest.mark.parametrize(
    ("columns", "text"), [(1000, ["x"]), (1, ["x" * 10_000_000])], ids=["wide", "long"]
)
def test_large_cells_and_many_columns_are_cut(columns: int, text: list[str]) -> None:
    html = Result(pa.table({f"c{at}": text for at in range(columns)}))._repr_html_()

    assert len(html) < 5_000


def test_a_result_without_columns_or_rows_is_shown() -> None:
    assert "0 rows" in Result(pa.table({"a": pa.array([], pa.int64())}))._repr_html_()
    assert "0 columns" in Result(pa.table({}))._repr_html_()


def test_a_pipeline_shows_its_plan_and_runs_nothing(flights: Pipeline, drawer: Any) -> None:
    html = flights.filter("distance < 5")._repr_html_()

    assert "filter distance &lt; 5" in html
    assert drawer.submitted == []


def test_progress_is_full_only_at_the_end() -> None:
    reading = job("running", Progress(1, 2, bytes_done=100, bytes_total=100))

    assert fraction_done(job("queued")) == 0
    assert fraction_done(reading) == 0.99
    assert fraction_done(job("done")) == 1
    assert "100 B of 100 B, 1 of 2 tasks" in bar_text(reading)
    assert 'value="0.990"' in bar_html(reading)


def test_following_a_job_to_a_file_writes_its_end_only() -> None:
    stream = io.StringIO()

    last = follow([job("queued"), job("running"), job("done")], stream)

    assert last.state == "done"
    assert stream.getvalue().splitlines() == [bar_text(job("done"))]
