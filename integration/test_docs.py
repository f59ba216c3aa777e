"""What the documentation shows is run: the README's Python against a real node, links, verbs."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nodes import RunningNode, quiet_environment

ROOT = Path(__file__).resolve().parents[1]
GLOBS = ("*.md", "docs/*.md", "packages/*/README.md", "apps/*/README.md", "design/*.md")
PAGES = sorted(page for pattern in GLOBS for page in ROOT.glob(pattern))
TRIPS = "city,miles\n" + "".join(f"{'Oslo' if i % 3 else 'Rome'},{i}\n" for i in range(30))


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("page", "start"),
    [("README.md", "## On your own file"), ("apps/gateway/README.md", "# sennit")],
)
def test_a_front_page_runs_from_top_to_bottom(page: str, start: str, tmp_path: Path) -> None:
    (tmp_path / "trips.csv").write_text(TRIPS)
    text = (ROOT / page).read_text(encoding="utf-8").partition(start)[2]
    blocks = re.findall(r"^```(sh|python)[ \t]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    environment = quiet_environment() | {
        "SENNIT_DATA": str(tmp_path / "node"),
        "SENNIT_NETWORK__PORT": "0",
        "SENNIT_EMSQRT__MEMORY_BYTES": "1GiB",
    }

    def run(command: list[str]) -> None:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    try:
        for language, code in blocks:
            if language == "python":
                run([sys.executable, "-c", code])
                continue
            for line in code.splitlines():
                verb = re.match(r"(?:\./)?platform (.*)", line)
                if verb:
                    words = shlex.split(verb[1], comments=True)
                    without_pages = ["--api-only"] if words[0] == "up" else []
                    run([sys.executable, "-m", "sennit.cli", *words, *without_pages])
    finally:
        run([sys.executable, "-m", "sennit.cli", "down"])
    assert {language for language, _ in blocks} == {"sh", "python"}


@pytest.mark.nightly
@pytest.mark.timeout(600)  # about fifteen processes
def test_first_examples_of_pages_about_a_node_run(own_node: RunningNode, tmp_path: Path) -> None:
    """The packages' tests run the examples of the other pages."""
    (tmp_path / "trips.csv").write_text(TRIPS)
    (tmp_path / "flights.csv").write_text(TRIPS)
    with gzip.open(tmp_path / "sales.csv.gz", "wt") as sales:
        sales.write("Region;Product;Amount\nNorth;Rope;1.5\n")
    environment = quiet_environment() | {"SENNIT_DATA": str(own_node.data)}

    def run(*command: str) -> None:
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    run("-m", "sennit.cli", "put", "flights.csv")
    for page in ("cli", "engines", "damage", "formats", "errors", "types", "pipelines", "glossary"):
        language, code = first_example(ROOT / f"docs/{page}.md")
        if page == "glossary":
            (tmp_path / "a.csv").write_text("n\n2\n1\n")
        if page == "pipelines":
            run("-m", "sennit.cli", "datasets", "trips", "--delete")
        if language == "python":
            run("-c", code)
        for verb in re.findall(r"^platform (?!up)(.*)", code, re.MULTILINE):
            run("-m", "sennit.cli", *shlex.split(verb, comments=True))


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.stem)
def test_a_page_begins_with_a_task_and_an_example(page: Path) -> None:
    title, nothing, task = page.read_text(encoding="utf-8").splitlines()[:3]
    assert title.startswith("# ")
    assert nothing == ""
    assert re.match(r"[A-Z][a-z]+\b", task), "say what the reader can do"
    assert first_example(page)


def test_the_readme_links_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in ROOT.glob("docs/*.md") if f"docs/{page.name})" not in text] == []


def first_example(page: Path) -> tuple[str, str]:
    """The language and the code of the first block, which comes before any table or section."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert not re.search(r"^\|", text[: found.start()], re.MULTILINE), "the example comes first"
    return found[1], found[2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readmes_commands_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    verbs = set(re.findall(r"^\./platform (\w+)", text, re.MULTILINE)) - {"test"}
    documented = set(
        re.findall(r"^\| `platform (\w+)", (ROOT / "docs/cli.md").read_text(), re.MULTILINE)
    )
    assert verbs <= documented
    assert os.access(ROOT / "platform", os.X_OK)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").glob("bench_*.py")), ids=lambda p: p.stem
)
def test_every_benchmark_starts(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")
