"""Show which tests run now: a pytest plugin for long runs (`-p live_line`).

On a terminal, one line is rewritten for every test; otherwise a line is printed every half minute,
so that a log shows progress without a line for each of thousands of tests.
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

import pytest

_LINE_SECONDS = 0.1
_LOG_SECONDS = 30.0


class LiveLine:
    """Prints the progress of a run, with the tests that each worker runs now.

    Args:
        live: whether the output is a terminal, where a line can be rewritten.
    """

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._started = time.monotonic()
        self._printed = self._started if not live else 0.0
        self._ended = 0
        self._failed = 0
        self._total = 0
        self._running: dict[str, None] = {}  # in the order in which they began

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Store the number of tests of a run without workers."""
        self._total = max(self._total, len(session.items))

    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Store the number of tests, which is the same in every worker."""
        self._total = max(self._total, len(ids))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Show a test that begins."""
        self._running[nodeid] = None
        self._show()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Count a test that ended."""
        self._running.pop(nodeid, None)
        self._ended += 1
        self._show()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print a failure at once; its traceback follows at the end."""
        if report.failed:
            self._failed += 1
            self._print(f"FAILED {report.nodeid} ({report.when})\n")

    def pytest_sessionfinish(self) -> None:
        """Leave an empty line for the summary."""
        self._print("")

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._printed < (_LINE_SECONDS if self._live else _LOG_SECONDS):
            return
        self._printed = now
        seconds = int(now - self._started)
        failed = f", {self._failed} failed" if self._failed else ""
        count = f"{self._ended} of {self._total} tests{failed}"
        running = "  ".join(self._running)
        text = f"[{seconds // 60}:{seconds % 60:02}] {count}  {running}"
        if self._live:
            self._print(text[: shutil.get_terminal_size().columns - 1])
        else:
            self._print(text + "\n")

    def _print(self, text: str) -> None:
        clear = "\r\x1b[K" if self._live else ""
        sys.__stderr__.write(clear + text)  # type: ignore[union-attr]  # pytest replaces sys.stderr
        sys.__stderr__.flush()  # type: ignore[union-attr]


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Print nothing for a test that passed."""
    if report.passed:
        return ("passed" if report.when == "call" else "", "", "")
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Install the plugin in the process that reports, and not in its workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(LiveLine(live=sys.__stderr__.isatty()), "live-line")  # type: ignore[union-attr]
