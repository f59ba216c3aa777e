"""The ratchet: sizes, names, versions, fragments and addresses only get better.

Each test reads the files that git tracks (or would track), so it is the same on every machine.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import plain_words
import pytest

import workspace

ROOT = Path(__file__).resolve().parents[1]
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
DESIGNED_NAMES = {"SpillManager"}  # public before this rule was
FORBIDDEN_NAMES = re.compile(
    r"(^|_)(utils?|helpers?|common|managers?|base|impl|misc)(_|$)", re.IGNORECASE
)
GENERATED = ("lock/", "package-lock.json", "apps/playground/lib/records.ts", "spec/")
TYPES_OF_CHANGE = ("feature", "fix", "change")
SUBJECTS = (*(package.name for package in workspace.packages()), "playground", "platform")
MODULES = "|".join(package.module for package in workspace.packages())
# A line of lock/*.txt: a pin with an optional marker, or a hash of it; so no line has an address.
LOCK_LINE = re.compile(
    r"[a-z0-9][a-z0-9._-]*==[0-9][0-9A-Za-z.+!]*( ; [^:]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?"
)
INDEX_OPTION = re.compile(r"--(?:extra-)?index-url|--find-links|--registry")
READ_BY_INSTALLERS = re.compile(
    r"(^|/)(platform|noxfile\.py|pyproject\.toml|package\.json|\.npmrc|lock/[^/]+|tools/[^/]+)$"
)
MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.])/(work|root|home/[a-z]+|farm|Users/[a-z]+)/")

ARROW_READERS = re.compile(
    r"(?<=\bipc\.)(?:open|read)_\w+(?=\()|pyarrow\.ipc import"
    r"|\b(?:RecordBatch(?:Stream|File)Reader|foreign_buffer|_import_from_c\w*|tableFromIPC)\("
)
ARROW_READERS_ALLOWED = {
    # The one that validates, and its use of Arrow.
    "packages/core/src/sennit_core/arrow_ipc.py:open_stream",
    "packages/core/src/sennit_core/arrow_ipc.py:read_schema",
    # A ring's schema, and batches that are validated right there.
    "packages/strand/src/strand/batches.py:read_schema",
    "packages/strand/src/strand/batches.py:read_record_batch",
    # Spill files, which the same process wrote and unlinked.
    "packages/emsqrt/src/emsqrt/io/parquet_passes.py:read_record_batch",
    "packages/emsqrt/src/emsqrt/io/partition_sink.py:read_record_batch",
    "packages/emsqrt/src/emsqrt/io/parquet_sink.py:open_file",
}


class Definition(NamedTuple):
    """A function or class of a source; not its tree, which takes the memory of many."""

    place: str
    name: str
    lines: int
    is_class: bool


@cache
def tracked() -> tuple[Path, ...]:
    """Every file of the tree that git knows or would know."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return tuple(ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file())


def sources(*endings: str) -> Iterator[Path]:
    for path in tracked():
        name = str(path.relative_to(ROOT))
        if path.suffix in endings and not name.startswith(GENERATED):
            yield path


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def definitions() -> tuple[Definition, ...]:
    """Every function and class of the Python sources; parsing them takes seconds."""
    return tuple(
        Definition(
            place=f"{shown(path)}:{node.lineno}",
            name=node.name,
            lines=(node.end_lineno or node.lineno) - node.lineno + 1,
            is_class=isinstance(node, ast.ClassDef),
        )
        for path in sources(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    )


def test_no_file_outgrows_its_subject() -> None:
    long = {
        shown(path): lines
        for path in sources(".py", ".c", ".h", ".ts", ".tsx", ".css", ".mjs")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES_MAX
    }
    assert long == {}, "split these by subject"


def test_no_function_outgrows_a_screen() -> None:
    long = [
        f"{found.place} {found.name}"
        for found in definitions()
        if not found.is_class and found.lines > FUNCTION_LINES_MAX
    ]
    assert long == [], "these functions do more than one thing"


def test_no_module_is_named_for_nothing() -> None:
    named = [
        shown(path)
        for path in sources(".py", ".ts", ".tsx", ".c")
        if FORBIDDEN_NAMES.search(path.stem)
    ]
    assert named == [], "name these for their subject"


def test_no_class_is_named_for_nothing() -> None:
    named = [
        f"{found.place} {found.name}"
        for found in definitions()
        if found.is_class and re.search(r"(Manager|Helper|Utils?|Impl)$", found.name)
        if found.name not in DESIGNED_NAMES
    ]
    assert named == [], "name these for what they are"


@pytest.mark.parametrize("area", plain_words.AREAS)
def test_the_private_dialect_does_not_grow(area: str) -> None:
    found, ceiling = plain_words.per_100_000(area), plain_words.CEILINGS[area]
    assert found <= ceiling, f"python tools/plain_words.py --where {area} shows the lines"
    assert found > ceiling - max(ceiling // 10, 20) or ceiling <= plain_words.GOAL, "lower it"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("from hypothesis import assume, given\ngave = 1", ["give"]),
        ("from hypothesis import (\n    given,\n)", []),
        ("@given(values())\ndef test_told(given: int) -> None:", ["tell", "give"]),
        ("table.take(rows)\ndef take(self) -> None:", ["take"]),
    ],
)
def test_names_of_libraries_are_no_dialect(text: str, words: list[str]) -> None:
    assert list(plain_words.groups_in(text)) == words


def test_arrow_from_outside_is_read_in_one_place() -> None:
    """Arrow's IPC readers trust offsets and lengths; `open_arrow` and `validate_batch` do not."""
    readers = {
        f"{shown(path)}:{function}"
        for path in sources(".py", ".ts", ".tsx", ".mjs")
        if not re.search(r"(^|/)(tests?|integration|benchmarks|tools)/|testing", shown(path))
        for function in ARROW_READERS.findall(path.read_text(encoding="utf-8"))
    }
    assert readers == ARROW_READERS_ALLOWED, "use sennit_core.arrow_ipc instead"


def test_a_lock_holds_pins_and_hashes_alone() -> None:
    locks = sorted(ROOT.glob("lock/*.txt"))
    strange = [
        f"{shown(lock)}:{number}"
        for lock in locks
        for number, line in enumerate(lock.read_text(encoding="utf-8").splitlines(), 1)
        if not LOCK_LINE.fullmatch(line)
    ]
    assert locks
    assert strange == []


def test_no_npm_lock_says_where_a_package_was_downloaded() -> None:
    locks = [path for path in tracked() if path.name == "package-lock.json"]
    resolved = [
        f"{shown(lock)}: {name}"
        for lock in locks
        for name, row in json.loads(lock.read_text(encoding="utf-8"))["packages"].items()
        if ":" in str(row.get("resolved", ""))
    ]
    assert locks
    assert resolved == []


def test_installers_get_no_index_address() -> None:
    """The user's configuration of pip, uv and npm chooses the index."""
    texts = {shown(path): path.read_text(encoding="utf-8") for path in _text_files()}
    chosen = [name for name, text in texts.items() if INDEX_OPTION.search(text)]
    addressed = [
        name for name, text in texts.items() if READ_BY_INSTALLERS.search(name) and "://" in text
    ]
    assert chosen + addressed == []


def test_no_path_of_one_machine() -> None:
    found = [
        f"{shown(path)}:{number}"
        for path in _text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


def _text_files() -> Iterator[Path]:
    for path in tracked():
        if path.suffix in {
            ".png",
            ".ico",
            ".parquet",
            ".arrow",
            ".gz",
            ".zip",
            ".bin",
        } or path == Path(__file__):
            continue
        yield path


def _projects() -> list[Path]:
    return [ROOT / package.folder / "pyproject.toml" for package in workspace.packages()]


def test_every_package_is_in_the_list_and_in_what_other_tools_read() -> None:
    listed = {ROOT / package.folder for package in workspace.packages()}
    assert listed == {path.parent for path in tracked() if path.name == "pyproject.toml"} - {ROOT}
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert text == workspace.with_lists(text), "run `python tools/workspace.py`"


@pytest.mark.parametrize("project", _projects(), ids=lambda path: path.parent.name)
def test_versions_are_static_and_siblings_are_ranges(project: Path) -> None:
    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", table["version"])
    requirements = [
        *table.get("dependencies", []),
        *(row for extra in table.get("optional-dependencies", {}).values() for row in extra),
    ]
    for requirement in requirements:
        assert "file:" not in requirement
        assert " @ " not in requirement
        own = re.match(r"(sennit-\w+)", requirement)
        if own:
            assert re.search(r">=\d+\.\d+,<\d+\.\d+", requirement), requirement
        assert not re.match(rf"({MODULES})\b(?!-)", requirement), "the name of an unrelated package"


def test_locks_name_no_package_of_ours() -> None:
    for lock in ROOT.glob("lock/*.txt"):
        text = lock.read_text(encoding="utf-8")
        assert not re.search(rf"^({MODULES})\b", text, re.MULTILINE), lock


@pytest.mark.parametrize("file", ["_build_backend.py", "hatch_build.py"])
def test_packages_build_in_the_same_way(file: str) -> None:
    copies = [*ROOT.glob(f"packages/*/{file}")]
    if file != "hatch_build.py":  # the gateway's adds the playground, those of packages compile C
        copies += ROOT.glob(f"apps/*/{file}")
    assert len(copies) > 1
    assert len({path.read_text(encoding="utf-8") for path in copies}) == 1


def test_every_package_ships_its_types() -> None:
    for project in _projects():
        (package,) = [path for path in (project.parent / "src").iterdir() if path.is_dir()]
        assert (package / "py.typed").is_file(), package


def test_change_fragments_are_named_by_the_rule() -> None:
    pattern = rf"({'|'.join(SUBJECTS)})-[a-z0-9-]+\.({'|'.join(TYPES_OF_CHANGE)})\.md"
    wrong = [
        path.name
        for path in (ROOT / "changes").iterdir()
        if path.name != "README.md" and not re.fullmatch(pattern, path.name)
    ]
    assert wrong == []


def test_design_notes_are_numbered_once() -> None:
    numbers = [path.name[:4] for path in (ROOT / "design").glob("*.md")]
    assert all(number.isdigit() for number in numbers)
    assert len(set(numbers)) == len(numbers)
