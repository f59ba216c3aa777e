"""Every operator at the smallest cap that is admitted, watched from outside."""

from __future__ import annotations

from pathlib import Path

import pytest
from smallest_runs import ALL, ARROW, FEW, MIB, TEXT_TIER, Watcher, make

from emsqrt import Engine, EngineConfig, Manifest, scan
from emsqrt.pipeline import Pipeline
from sennit_core.errors import CapTooSmall

FIRST_BYTES = 14 * MIB
"""A cap to begin with: a little above what the text tier needs, and refused by the other one."""


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 8 MB, several times what there is to work in."""
    return make(tmp_path_factory.mktemp("few"), 120_000)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 50 MB."""
    return make(tmp_path_factory.mktemp("many"), 800_000)


def least(pipeline: Pipeline, engine: Engine) -> tuple[Manifest, int, int]:
    """Run with the cap that the refusal of a little less names.

    Returns:
        The manifest, that cap, and the peak as measured from outside.
    """
    cap_bytes, refused_bytes = FIRST_BYTES, 0
    for _ in range(40):
        with Watcher() as watcher:
            try:
                manifest = engine.run(pipeline.plan, mem_cap=cap_bytes)
            except CapTooSmall as error:
                refused_bytes, cap_bytes = cap_bytes, error.needed_bytes
                continue
        assert watcher.peak_bytes <= cap_bytes
        if refused_bytes:
            return manifest, cap_bytes, watcher.peak_bytes
        cap_bytes = cap_bytes * 9 // 10
    raise AssertionError(f"refused again and again, last with {cap_bytes} bytes")


def check_caps(name: str, kind: str, folder: Path, tmp_path: Path) -> None:
    """Run at the smallest cap and with plenty, and compare."""
    verbs = TEXT_TIER if kind == "csv" else ARROW
    a, b = (scan(folder / f"{side}.{kind}") for side in "ab")
    pipeline = verbs[name](a, b).sink(tmp_path / f"least.{kind}")
    engine = Engine(EngineConfig(spill_dir=tmp_path / "spill"))

    manifest, cap_bytes, peak_bytes = least(pipeline, engine)

    assert peak_bytes <= cap_bytes
    assert peak_bytes <= manifest.peak_bytes + max(2 * MIB, peak_bytes // 20)
    assert manifest.peak_bytes <= cap_bytes
    verbs[name](a, b).sink(tmp_path / f"plenty.{kind}").run(512 * MIB, engine=engine)
    written = [(tmp_path / f"{each}.{kind}").read_bytes() for each in ("least", "plenty")]
    assert written[0] == written[1]


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "kind"), FEW)
def test_an_operator_runs_at_its_smallest_cap(
    name: str, kind: str, few: Path, tmp_path: Path
) -> None:
    check_caps(name, kind, few, tmp_path)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "kind"), ALL)
def test_every_operator_runs_at_its_smallest_cap(
    name: str, kind: str, many: Path, tmp_path: Path
) -> None:
    check_caps(name, kind, many, tmp_path)
