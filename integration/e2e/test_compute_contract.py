"""Tabs of a real Chromium pass the contract of backends: the bits of the engine `local`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from e2e.compute_tabs import Tabs
from opened_node import open_node
from playwright.sync_api import Browser

from elytra.pipelines.pipeline import Pipeline
from elytra.testing import BackendContract, BackendWorld
from emsqrt.expr import col, count

TABS = 2
_LONG_ROWS = 400_000  # as the contract expects
# Of one core: tasks that take 50 ms or less are not slowed down, and long ones take many seconds.
_SHARE = 0.1


@dataclass(frozen=True)
class TabWorld(BackendWorld):
    """A node whose workers are tabs."""

    def long(self) -> Pipeline:
        """A pipeline of functions that JavaScript computes; that of the contract has others."""
        if self.dataset("long") is None:
            self.lake.append("long", pa.table({"n": pa.array(range(_LONG_ROWS), pa.int64())}))
        values = {f"v{index}": (col("n") * index).cast("Utf8").length() for index in range(4)}
        sums = {f"sum_{name}": col(name).sum() for name in values}
        return self.pipeline("long").with_columns(**values).agg(n=count(), **sums)


@pytest.mark.e2e
@pytest.mark.nightly
@pytest.mark.timeout(600)
class TestTabs(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def world(
        cls, browser: Browser, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[BackendWorld]:
        with ExitStack() as owned:
            folder: Path = tmp_path_factory.mktemp("tabs")
            opened = owned.enter_context(open_node(folder, {"emsqrt.executors": 2}))
            node = opened.node
            token = (folder / "admin.token").read_text().strip()
            tabs = owned.enter_context(Tabs(browser, opened.url, token, share=_SHARE))

            def kill() -> None:
                count = len(tabs.pages)
                tabs.close_all()
                tabs.open(count)

            worker, *_ = tabs.open(TABS)
            yield TabWorld(
                node.jobs, node.lake, node.stores["sys"], folder, "browser", node.jobs.remote,
                worker, tabs.busy_count, kill,
            )  # fmt: skip
