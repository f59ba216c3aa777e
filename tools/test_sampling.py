"""Which cases of a test a plain run selects, and the progress that a long run shows."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
CASES = """
import pytest

@pytest.mark.sample(3)
@pytest.mark.parametrize("b", "xy")
@pytest.mark.parametrize("a", range(5))
def test_of_ten(a, b): pass

@pytest.mark.sample(3)
@pytest.mark.parametrize("a", range(2))
def test_of_two(a): pass

def test_that_fails(): assert not "always"
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with this repository's settings of tests."""
    pytester.makeconftest((ROOT / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers =\n    nightly: long\n    sample(n): n cases\n")
    pytester.makepyfile(CASES)
    return pytester


def test_a_plain_run_selects_cases_spread_over_all(project: pytest.Pytester) -> None:
    found = project.runpytest_inprocess("--collect-only", "-q", "-m", "not nightly")
    cases = [line.partition("::")[2] for line in found.outlines if "::" in line]
    assert cases == [
        *("test_of_ten[0-x]", "test_of_ten[1-y]", "test_of_ten[3-x]"),
        *("test_of_two[0]", "test_of_two[1]"),
        "test_that_fails",
    ]
    rest = project.runpytest_inprocess("--collect-only", "-q", "-m", "nightly")
    assert sum("::" in line for line in rest.outlines) == 7


def test_a_long_run_names_running_and_failed_tests(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tools"))
    ran = project.runpytest_subprocess("-q", "-p", "live_line", "-n", "2", "--dist", "loadfile")
    ran.assert_outcomes(passed=12, failed=1)
    assert any(line.startswith("FAILED") and "test_that_fails" in line for line in ran.errlines)
    assert not any("....." in line for line in ran.outlines)
