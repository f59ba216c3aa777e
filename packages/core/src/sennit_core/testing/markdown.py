"""Run the Python examples of a Markdown file, so that they stay correct."""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["run_markdown"]

_BLOCK = re.compile(r"^```python[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def run_markdown(
    path: str | PathLike[str], *, files: Mapping[str, str] | None = None, **names: Any
) -> dict[str, Any]:
    """Execute a file's ```python blocks from top to bottom and return their namespace.

    All blocks share one namespace and run in a new, empty working folder that is removed after.
    A failure's traceback shows the Markdown file and its line.

    Args:
        path: the Markdown file.
        files: text files to create in the working folder before the first block runs, by name.
        names: values to add to the namespace before the first block runs.

    Raises:
        ValueError: the file has no ```python block.
    """
    source = Path(path).resolve()
    text = source.read_text(encoding="utf-8")
    blocks = list(_BLOCK.finditer(text))
    if not blocks:
        raise ValueError(f"{source.name} has no ```python block to run")
    module = ModuleType("_markdown_example")
    module.__dict__.update(names)
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        for name, content in (files or {}).items():
            Path(name).write_text(content, encoding="utf-8")
        sys.modules[module.__name__] = module  # dataclasses look their own module up
        try:
            for block in blocks:
                lines_before = text.count("\n", 0, block.start(1))
                code = "\n" * lines_before + block[1]
                exec(compile(code, str(source), "exec"), module.__dict__)
        finally:
            del sys.modules[module.__name__]
    return module.__dict__
