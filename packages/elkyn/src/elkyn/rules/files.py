"""`elkyn rules check` and `elkyn rules test`: check rules files before they are in force."""

from __future__ import annotations

from pathlib import Path as FilePath
from textwrap import indent
from typing import TextIO

from elkyn.rules.cases import Outcome, read_tests
from elkyn.rules.problems import BadRules, Problem
from elkyn.rules.ruleset import parse_rules

__all__ = ["check_file", "run_test_file"]

GOOD, WRONG, UNREADABLE = 0, 1, 2


def check_file(path: str | FilePath, stream: TextIO) -> int:
    """Check a rules file and write its problems and warnings to `stream`.

    Returns:
        0 for a valid file, 1 for an invalid one, 2 when it cannot be read.
    """
    try:
        rules = parse_rules(FilePath(path).read_bytes())
    except OSError as error:
        return _unreadable(error, stream)
    except BadRules as error:
        return _refused(path, error, stream)
    notes = [problem._replace(text=f"note: {problem.text}") for problem in rules.advice()]
    stream.write("".join(_line(path, problem) for problem in notes))
    stream.write(f"{path}: good\n")
    return GOOD


def run_test_file(path: str | FilePath, stream: TextIO, *, explain: bool = False) -> int:
    """Run the cases of a rule test file and write a report to `stream`.

    Args:
        path: the test file; `elkyn.rules.cases` describes it.
        stream: receives the report.
        explain: show the deciding rule and its values for every case, not only for failed ones.

    Returns:
        0 when every case passed, 1 when a case failed or the file is invalid, 2 when the file, or
        the rules file that it names, cannot be read.
    """
    try:
        source = FilePath(path).read_text(encoding="utf-8")
        outcomes = read_tests(source, FilePath(path).parent).run()
    except OSError as error:
        return _unreadable(error, stream)
    except UnicodeDecodeError as error:
        stream.write(f"{path}: byte {error.start} is not UTF-8\n")
        return WRONG
    except BadRules as error:
        return _refused(path, error, stream)
    for outcome in outcomes:
        if explain or not outcome.passed:
            stream.write(_report(path, outcome))
    failed = sum(not outcome.passed for outcome in outcomes)
    stream.write(f"{len(outcomes)} cases: {len(outcomes) - failed} passed, {failed} failed\n")
    return WRONG if failed else GOOD


def _report(path: str | FilePath, outcome: Outcome) -> str:
    case = outcome.case
    expected = "allowed" if case.expected else "denied"
    verdict = "ok" if outcome.passed else f"FAILED: expected to be {expected}"
    return f"{path}:{case.line}: {case.name}: {verdict}\n{indent(str(outcome.explanation), '  ')}\n"


def _line(path: str | FilePath, problem: Problem) -> str:
    where = f" {problem.path}:" if problem.path else ""
    return f"{path}:{problem.line}:{problem.column}:{where} {problem.text}\n"


def _refused(path: str | FilePath, error: BadRules, stream: TextIO) -> int:
    stream.write("".join(_line(path, problem) for problem in error.problems))
    count = len(error.problems)
    stream.write(f"{count} problem{'' if count == 1 else 's'}\n")
    return WRONG


def _unreadable(error: OSError, stream: TextIO) -> int:
    stream.write(f"{error.filename}: {error.strerror}\n")
    return UNREADABLE
