"""Count words of a private dialect, in which this code once was written, per 100,000 words.

    python tools/plain_words.py [--where] [AREA ...]

A data engineer should guess right at first reading, so names, comments, messages and pages use the
field's words. The groups below were common here and are rare elsewhere (about 30 in httpx, 90 in
trio): vague verbs, pronouns without a noun, and pictures that no other database uses. `CEILINGS` may
only be lowered; 60 is the goal for every area. `--where` prints each line that counts.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from workspace import packages

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {
    "tell": "tells?|told|telling",
    "beside": "beside",
    "stand": "stands?|stood|standing",
    "judge": "judge[sd]?|judging|judgements?",
    "nobody": "nobody|whoever|whatever|strangers?|somebody|anybody|everybody",
    "lie": "lies|lay|lain|lying|lie",
    "door": "doors?",
    "let_go": "lets? go|letting go",
    "late": "late",
    "give": "gives?|gave|given|giving",
    "take": "takes?|took|taken|taking",
    "turn": "turns?|turned",
}
"""What to look for, and the name that it is counted under; see `docs/glossary.md` for better words."""
CODE = (".py", ".pyi", ".c", ".h", ".ts", ".tsx", ".js")
AREAS = {
    "docs": (("docs", "README.md", "ARCHITECTURE.md", "CONTRACTS.md"), (".md",)),
    **{
        package.name: ((f"{package.folder}/src", f"{package.folder}/README.md"), (*CODE, ".md"))
        for package in packages()
    },
    "js": (
        ("apps/playground", "packages/strand/js", "packages/elkyn/js", "packages/elytra/js"),
        (*CODE, ".md"),
    ),
    "tests": (("packages", "apps/gateway/tests", "integration", "tools"), (".py",)),
}
"""Folders and files of each area, and which files of the folders count."""
GOAL = 60
CEILINGS = dict.fromkeys(AREAS, GOAL)
LEFT_OUT = {"node_modules", ".next", "out", "dist", "__pycache__", ".venv"}
_JOINED = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_")
_WORD = re.compile("[A-Za-z]+")
# `given` of hypothesis, and `take` of pyarrow and Spark where it is called; definitions count.
_OF_LIBRARIES = re.compile(
    r"^from hypothesis import [^(\n]*$|^from hypothesis import \([^)]*\)|\bgiven\(|\.take\(",
    re.MULTILINE,
)
_ANY = re.compile(
    rf"\b(?:{'|'.join(f'(?P<{name}>{words})' for name, words in GROUPS.items())})\b", re.IGNORECASE
)


def files_of(area: str) -> Iterator[Path]:
    """Yield the files of an area."""
    places, endings = AREAS[area]
    for place in places:
        path = ROOT / place
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            inside = file.relative_to(ROOT).parts
            is_test = "tests" in inside or inside[0] in ("integration", "tools")
            if file.suffix in endings and not LEFT_OUT & set(inside) and file.is_file():
                if area not in ("tests", "docs") and is_test:
                    continue
                if area == "tests" and (not is_test or file == Path(__file__)):
                    continue
                yield file


def split_names(text: str) -> str:
    """Return a text with the words of its names apart: `query_seconds`, `QueryLimits`."""
    return _JOINED.sub(" ", text)


def own_words(text: str) -> str:
    """Return a text without the names of libraries that the dialect shares; lines stay lines."""
    return split_names(_OF_LIBRARIES.sub(lambda name: "\n" * name[0].count("\n"), text))


def groups_in(text: str) -> Iterator[str]:
    """Yield the group of each word of the dialect in a text."""
    for match in _ANY.finditer(own_words(text)):
        if match.lastgroup:
            yield match.lastgroup


def count(area: str) -> tuple[int, Counter[str]]:
    """Return how many words an area has, and how many of each group."""
    words, found = 0, Counter[str]()
    for file in files_of(area):
        text = file.read_text(encoding="utf-8", errors="replace")
        words += len(_WORD.findall(split_names(text)))
        found.update(groups_in(text))
    return words, found


def per_100_000(area: str) -> int:
    """Return how many words of the dialect an area has among 100,000."""
    words, found = count(area)
    return round(sum(found.values()) * 100_000 / max(words, 1))


def lines_of(area: str) -> Iterator[str]:
    """Yield each line that has one, with its place."""
    for file in files_of(area):
        text = file.read_text(encoding="utf-8", errors="replace")
        lines = zip(text.split("\n"), own_words(text).split("\n"), strict=True)
        for number, (line, words) in enumerate(lines, 1):
            if _ANY.search(words):
                yield f"{file.relative_to(ROOT)}:{number}: {line.strip()}"


def main() -> None:
    """Print a table of the areas, or the lines of some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA")
    parser.add_argument("--where", action="store_true", help="print each line that counts")
    chosen = parser.parse_args()
    for area in chosen.areas or AREAS:
        if chosen.where:
            print(*lines_of(area), sep="\n")
            continue
        words, found = count(area)
        groups = ", ".join(f"{name} {count}" for name, count in found.most_common() if count)
        print(f"{area:8} {words:7} words  {per_100_000(area):5} in 100,000  {groups}")


if __name__ == "__main__":
    main()
