"""The memory of a node, measured from outside."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Self

import psutil

from nodes import RunningNode

__all__ = ["MeasuredMemory"]

_EVERY_SECONDS = 0.05


class MeasuredMemory:
    """Measures a node's process, and all of its processes together, until the context is left."""

    def __init__(self, node: RunningNode) -> None:
        self._process = psutil.Process(node.process.pid)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.before_bytes = self.peak_bytes = self._process.memory_info().rss
        self.peak_bytes_together = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    @property
    def growth_bytes(self) -> int:
        """How much more the node's process has had than at the beginning."""
        return self.peak_bytes - self.before_bytes

    def _run(self) -> None:
        while not self._ends.wait(_EVERY_SECONDS):
            with suppress(psutil.NoSuchProcess):
                own = self._process.memory_info().rss
                others = 0
                for each in self._process.children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        others += each.memory_info().rss
                self.peak_bytes = max(self.peak_bytes, own)
                self.peak_bytes_together = max(self.peak_bytes_together, own + others)
