"""Spill folders of executors: one for each pool, one below it for each attempt."""

from __future__ import annotations

import shutil
from pathlib import Path

from emsqrt.executor.context import process_folder
from emsqrt.spill.area import RunFolder
from emsqrt.spill.placement import default_spill_dir

__all__ = ["SpillArea", "default_spill_dir"]


class SpillArea(RunFolder):
    """The folder of one pool; created and locked by `__init__`, removed by `close`."""

    def attempt_dir(self, attempt: str) -> Path:
        """Return the folder that the attempt's executor creates when it needs one."""
        return self.folder / attempt

    def remove(self, attempt: str) -> None:
        """Remove what an attempt left behind."""
        shutil.rmtree(self.attempt_dir(attempt), ignore_errors=True)

    def remove_process(self, pid: int) -> None:
        """Remove what an executor process left behind apart from its attempts."""
        shutil.rmtree(process_folder(self.folder, pid), ignore_errors=True)
