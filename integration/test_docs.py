"""What the documentation shows is run: the README's Python against a real node, links, verbs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nodes import running_node
from sennit_core.testing import run_markdown

ROOT = Path(__file__).resolve().parents[1]
GLOBS = ("*.md", "docs/*.md", "packages/*/README.md", "apps/*/README.md", "design/*.md")
PAGES = sorted(page for pattern in GLOBS for page in ROOT.glob(pattern))
TRIPS = "city,miles\n" + "".join(f"{'Oslo' if i % 3 else 'Rome'},{i}\n" for i in range(30))


@pytest.mark.parametrize("page", ["README.md", "apps/gateway/README.md"])
def test_the_front_pages_python_runs_against_a_node(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_node(tmp_path / "node", "--api-only", "--memory", "1GiB") as node:
        monkeypatch.setenv("SENNIT_DATA", str(node.data))
        monkeypatch.delenv("SENNIT_URL", raising=False)
        ran = run_markdown(ROOT / page, files={"trips.csv": TRIPS})
    assert "sennit" in ran


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
