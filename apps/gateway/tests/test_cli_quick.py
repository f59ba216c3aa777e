"""The command line of `sql` that needs no Typer says what Typer's would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer.main

from sennit.cli import app, run
from sennit.cli.quick import OPTIONS, parse_sql
from sennit.cli.sql import Query


def test_the_options_are_those_of_the_verb() -> None:
    verb: Any = typer.main.get_command(app).commands["sql"]  # type: ignore[attr-defined]
    options = [parameter for parameter in verb.params if hasattr(parameter, "is_flag")]
    known = {name: option.is_flag for option in options for name in option.opts}
    for name in ("--help", "-h"):
        known.pop(name, None)
    assert known == {name: read is None for name, (_, read) in OPTIONS.items()}


def test_the_defaults_are_those_of_the_verb() -> None:
    verb: Any = typer.main.get_command(app).commands["sql"]  # type: ignore[attr-defined]
    defaults = {parameter.name: parameter.default for parameter in verb.params}
    query = Query("select 1")
    for member in (
        "limit",
        "as_csv",
        "as_json",
        "engine",
        "priority",
        "allow_partial",
        "queue",
        "data",
        "url",
    ):
        assert getattr(query, member) == defaults[member], member


@pytest.mark.parametrize(
    ("words", "members"),
    [
        (["select 1"], {}),
        (["--limit", "5", "select 1"], {"limit": 5}),
        (["select 1", "--limit=5", "--csv"], {"limit": 5, "as_csv": True}),
        (["select 1", "--json", "--data", "d"], {"as_json": True, "data": Path("d")}),
        (["select 1", "--allow-partial"], {"allow_partial": True}),
        (["select 1", "--queue"], {"queue": True}),
        (["select 1", "--url=http://a=b"], {"url": "http://a=b"}),
    ],
)
def test_a_plain_command_line_is_accepted(words: list[str], members: dict[str, Any]) -> None:
    assert parse_sql(["sql", *words]) == {"sql": "select 1", **members}


@pytest.mark.parametrize(
    "words",
    [
        ["sql"], ["sql", "--help"], ["sql", "a", "b"], ["sql", "a", "--limit"],
        ["sql", "a", "--limit", "x"], ["sql", "a", "--limit", "--csv"], ["sql", "a", "--csv=1"],
        ["sql", "a", "--nope"], ["sql", "--", "a"], ["status"], [], ["sql", "-1"],
    ],
)  # fmt: skip
def test_anything_else_is_left_to_typer(words: list[str]) -> None:
    assert parse_sql(words) is None


@pytest.mark.parametrize("limit", ["-5", "x", "1e3", str(-(10**30))])
def test_a_wrong_limit_is_named(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sql", "select 1", f"--limit={limit}"]) == 2
    assert "--limit" in capsys.readouterr().err
