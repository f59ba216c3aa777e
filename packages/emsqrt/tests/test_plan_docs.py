"""The page on plans runs, and names every word there is."""

from pathlib import Path

import pytest

from emsqrt.expr.functions import AGGREGATES, FUNCTIONS
from emsqrt.plan.reading import RESERVED_OPERATORS
from emsqrt.plan.reading_operators import READERS
from emsqrt.planner import RULES
from sennit_core.testing import run_markdown

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE, EXPRESSIONS = DOCS / "plan-ir.md", DOCS / "expressions.md"
PLANNING = DOCS / "planning.md"


@pytest.mark.parametrize("page", [PAGE, EXPRESSIONS], ids=["plan-ir", "expressions"])
def test_the_example_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_markdown(page)


@pytest.mark.nightly
def test_the_stages_of_planning_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_markdown(PLANNING)


def test_every_rule_and_every_operator_is_described() -> None:
    for rule in RULES:
        assert f"`{rule.__name__}`" in PLANNING.read_text("utf-8")
    for word in READERS:
        assert f"| `{word}` |" in PAGE.read_text("utf-8")


@pytest.mark.parametrize("word", [*FUNCTIONS, *AGGREGATES])
def test_every_function_is_described(word: str) -> None:
    assert f"`{word}`" in EXPRESSIONS.read_text("utf-8")


def test_every_reserved_operator_is_named() -> None:
    assert " ".join(RESERVED_OPERATORS) in PAGE.read_text("utf-8")
