import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from sennit_core.clock import SYSTEM, Clock
from sennit_core.testing import (
    ManualClock,
    import_graph,
    imported_modules,
    module_files,
    run_markdown,
)


def test_system_clock_returns_time_and_waits() -> None:
    before, started = SYSTEM.now(), SYSTEM.monotonic()
    SYSTEM.sleep(0.001)
    assert SYSTEM.now() >= before > 1.7e9
    assert SYSTEM.monotonic() >= started + 0.001


def test_manual_clock_moves_only_by_hand() -> None:
    clock: Clock = ManualClock(100.0)
    assert (clock.now(), clock.monotonic()) == (100.0, 0.0)
    clock.sleep(2.5)
    clock.sleep(-1)
    assert (clock.now(), clock.monotonic()) == (102.5, 2.5)


def test_manual_clock_set_back_keeps_durations() -> None:
    clock = ManualClock(100.0)
    clock.advance(1)
    clock.set_back(50)
    assert (clock.now(), clock.monotonic()) == (51.0, 1.0)
    with pytest.raises(ValueError, match="set_back"):
        clock.advance(-1)


@pytest.fixture
def markdown(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "page.md"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_blocks_share_a_namespace_and_an_empty_folder(markdown: Callable[[str], Path]) -> None:
    page = markdown(
        "# Page\n```python\nfrom pathlib import Path\nempty = not list(Path().iterdir())\n"
        "Path('f').write_text('x')\n```\ntext\n```sh\nexit 1\n```\n"
        "```python\ntext = Path('f').read_text() + suffix\n```\n"
    )
    before = Path.cwd()
    names = run_markdown(page, suffix="y")
    assert (names["empty"], names["text"]) == (True, "xy")
    assert Path.cwd() == before
    assert "_markdown_example" not in sys.modules


def test_dataclasses_work_in_a_block(markdown: Callable[[str], Path]) -> None:
    page = markdown(
        "```python\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: 'int'\np = P(3)\n```\n"
    )
    assert run_markdown(page)["p"].x == 3


def test_failure_shows_the_line_of_the_page(markdown: Callable[[str], Path]) -> None:
    page = markdown("one\n\n```python\na = 1\nassert a == 2\n```\n")
    with pytest.raises(AssertionError) as raised:
        run_markdown(page)
    assert traceback.extract_tb(raised.tb)[-1].lineno == 5
    assert traceback.extract_tb(raised.tb)[-1].filename.endswith("page.md")


def test_page_without_examples_is_refused(markdown: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="no ```python block"):
        run_markdown(markdown("nothing\n```sh\nls\n```\n"))


@pytest.fixture
def package(tmp_path: Path) -> ModuleType:
    files = {
        "__init__": "from braid.top import top\n",
        "top": "import braid.parts.low\n\ndef top():\n    from braid import middle\n",
        "middle": "if TYPE_CHECKING:\n    from braid.parts import low\n",
        "parts/__init__": "import sys\n",
        "parts/low": "from braid.parts import other_name\n",
    }
    for name, text in files.items():
        file = tmp_path / "braid" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    made = ModuleType("braid")
    made.__path__ = [str(tmp_path / "braid")]
    return made


def test_the_import_graph_has_lazy_imports_and_those_for_types(package: ModuleType) -> None:
    assert import_graph(package) == {
        "braid.middle": {"braid.parts.low"},
        "braid.parts": set(),
        "braid.parts.low": {"braid.parts"},
        "braid.top": {"braid.middle", "braid.parts.low"},
    }


def test_imports_for_types_can_be_left_out(package: ModuleType) -> None:
    known = module_files(package)
    assert sorted(known) == ["braid", *import_graph(package)]
    assert list(imported_modules(known["braid.middle"], known, types=False)) == []
