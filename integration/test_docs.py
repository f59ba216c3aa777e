"""What the documentation shows is run: the README's Python against a real node, links, verbs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nodes import quiet_environment

ROOT = Path(__file__).resolve().parents[1]
GLOBS = ("*.md", "docs/*.md", "packages/*/README.md", "apps/*/README.md", "design/*.md")
PAGES = sorted(page for pattern in GLOBS for page in ROOT.glob(pattern))
TRIPS = "city,miles\n" + "".join(f"{'Oslo' if i % 3 else 'Rome'},{i}\n" for i in range(30))


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


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").glob("bench_*.py")), ids=lambda p: p.stem
)
def test_every_benchmark_starts(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")
