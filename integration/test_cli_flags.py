"""Every option with a value, of every verb, with absurd values: an error, never a traceback."""

from __future__ import annotations

from typing import Any

import pytest
import typer.main

from nodes import RunningNode
from sennit.cli import app, run

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]  # about 400 command lines

ABSURD = ("0", "-1", "-5", str(10**30), str(-(10**30)), "1e400", "nan", "text", "", "-")
ARGUMENTS = {
    "put": ["{data}/none.csv"],
    "sql": ["select 1"],
    "run": ["none"],
    "watch": ["/none"],
}
# Words that start something for good: `up --memory 0` is a node, `logs --follow` has no end.
LEFT_OUT = {("up", "--memory", "0"), ("up", "--port", "0"), ("up", "--host", "")}


def options() -> list[tuple[str, str]]:
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return [
        (verb, option.opts[-1])
        for verb, command in commands.items()
        for option in command.params
        if getattr(option, "is_flag", None) is False
        and (verb, option.opts[-1]) != ("up", "--data")  # any name is one of a new node's folder
    ]


def test_there_are_options_to_try() -> None:
    assert {("sql", "--limit"), ("up", "--port"), ("logs", "--lines")} <= set(options())


@pytest.mark.parametrize(("verb", "option"), options())
def test_an_absurd_word_ends_in_a_sentence(
    verb: str, option: str, node: RunningNode, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(data=node.data) for word in ARGUMENTS.get(verb, [])]
    data = [] if option == "--data" else ["--data", str(node.data)]
    for absurd in ABSURD:
        if (verb, option, absurd) in LEFT_OUT:
            continue
        status = run([verb, *words, *data, f"{option}={absurd}"])  # raises where it is no error
        printed = capsys.readouterr()
        assert status == 0 or printed.err.startswith(("error: ", "the system log is empty")), absurd
        assert "Traceback" not in printed.err
