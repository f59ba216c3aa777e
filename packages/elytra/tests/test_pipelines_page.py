"""The examples of docs/pipelines.md that need no node run, from top to bottom."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "pipelines.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_examples_on_this_machine_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trips.csv").write_text("city,miles\nNew York,12\nRome,3\n")
    here = [
        code
        for code in BLOCKS
        if "Elytra.local" in code or "opaque=True" in code or "asyncio.run" in code
    ]
    names: dict[str, object] = {}

    for code in here:
        exec(code, names)

    assert len(here) == 4
    kept, halves = eval("kept.collect().rows, halves.sum('miles').collect().value", names)
    assert kept == [("New York", "NY"), ("Rome", "R")]
    assert halves == 7.5
    eval("local.close()", names)
