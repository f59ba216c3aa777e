"""A disk that goes wrong in the middle of a whole run: the right answer, or a clean error."""

from __future__ import annotations

import random
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from fuzz_runs import NullStream, smallest

from emsqrt.executor.context import EntryContext
from emsqrt.memory import MemoryBudget
from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import plan_to_json
from emsqrt.session import run_plan
from emsqrt.spill import SpillError
from emsqrt.spill.local import LocalStore
from emsqrt.spill.testing import DISK_FAULTS, DiskFault, FaultyDisk
from emsqrt.text_engine.compile import compile_text
from emsqrt.text_engine.session import run_text


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files with many different keys, several times the memory of the runs here."""
    folder = tmp_path_factory.mktemp("data")
    dice = random.Random(11)
    for name, rows in (("a", 24_000), ("b", 20_000)):
        with (folder / f"{name}.csv").open("w") as file:
            file.write(f"k,n,t{name}\n")
            for _ in range(rows):
                key, number = dice.randint(0, rows), dice.randint(-99, 99)
                file.write(f"{key},{number},{'text ' * dice.randint(4, 20)}\n")
    return folder


class QuickDisk(FaultyDisk):
    """A disk that fails at the chosen call, and otherwise waits for nothing."""

    def flush(self, file: int, start: int, size: int, *, wait: bool) -> None:
        """Fail, or do nothing."""
        self._count("flush")


def plans(folder: Path) -> dict[str, Pipeline]:
    """The plans that spill, by name."""
    a, b = scan(folder / "a.csv"), scan(folder / "b.csv")
    return {
        "sort": a.sort("k:desc", "ta"),
        "aggregate": a.group_by("k", "ta").agg(total="sum(n)", mean="avg(n)", kinds="median(n)"),
        "distinct": a.distinct(),
        "join": a.join(b.rename({"n": "m"}), "k", "full"),
        "semi": a.join(b, [("k", "k"), ("ta", "tb")], "semi"),
        "window": a.window("n", "k", at="row_number()", total="sum(k)"),
        "top_k": a.top_k(20_000, "k:desc", "ta"),
    }


def carry_out(
    pipeline: Pipeline, tier: str, target: Path, spill: Path, disk: FaultyDisk, memory_bytes: int
) -> bytes:
    """Run a plan here in little memory on a disk that fails, and return what it wrote."""
    plan = pipeline.sink(target).plan
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr("emsqrt.spill.placement.LocalStore", lambda root: LocalStore(root, disk=disk))
        patch.setattr("os.fsync", lambda _: None)
        budget = MemoryBudget(memory_bytes)
        context = EntryContext(
            "the test", memory_bytes, NullStream(), lambda _: None, spill, None, budget
        )
        stack.enter_context(closing(context))
        if tier == "arrow":
            run_plan(plan_to_json(plan), context, target.parent)
        else:
            run_text(compile_text(plan, target.parent), context)
    return target.read_bytes()


def places(names: list[str], spread: int) -> list[int]:
    """Return numbers of calls to fail: so many of each kind, first and last among them."""
    chosen: set[int] = set()
    for kind in set(names):
        calls = [number for number, name in enumerate(names, 1) if name == kind]
        step = max(1, (len(calls) - 1) // max(1, spread - 1))
        chosen |= {*calls[::step], calls[-1]}
    return sorted(chosen)


def check_faults(
    pipeline: Pipeline, tier: str, fault: DiskFault, tmp_path: Path, spread: int
) -> None:
    """Fail calls one after the other, and check what is left of each run."""
    out, spill = tmp_path / "out", tmp_path / "spill"
    out.mkdir()
    quiet, target = QuickDisk(), out / "t.csv"
    expected, size = smallest(lambda size: carry_out(pipeline, tier, target, spill, quiet, size))
    assert quiet.names.count("write") > 2, "the run spills"
    errors: list[str] = []
    for at in places(quiet.names, spread):
        target.unlink(missing_ok=True)
        disk = QuickDisk(at, fault)
        try:
            assert carry_out(pipeline, tier, target, spill, disk, size) == expected
        except SpillError as error:
            errors.append(str(error))
            target.touch(exist_ok=False)  # nothing was there
        assert list(out.iterdir()) == [target], disk.names[at - 1]
        assert [path for path in spill.rglob("*") if path.name != ".sweep"] == []
    assert bool(errors) == (fault != "short")
    assert all(str(spill) in text for text in errors)


CASES = [
    (name, tier)
    for name in ("sort", "aggregate", "distinct", "join", "semi", "top_k", "window")
    for tier in ("text", "arrow")
    if (name, tier) != ("window", "text")
]


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "tier", "fault"),
    [
        ("sort", "text", "flipped"),
        ("aggregate", "arrow", "short"),
        ("join", "text", "full"),
        ("distinct", "arrow", "broken"),
        ("window", "arrow", "full"),
    ],
)
def test_a_run_on_a_disk_that_fails(
    name: str, tier: str, fault: DiskFault, data: Path, tmp_path: Path
) -> None:
    check_faults(plans(data)[name], tier, fault, tmp_path, 3)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", DISK_FAULTS)
@pytest.mark.parametrize(("name", "tier"), CASES)
def test_a_run_on_a_disk_that_fails_anywhere(
    name: str, tier: str, fault: DiskFault, data: Path, tmp_path: Path
) -> None:
    check_faults(plans(data)[name], tier, fault, tmp_path, 12)
