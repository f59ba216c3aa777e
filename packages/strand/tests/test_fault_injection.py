"""SIGKILL and SIGSTOP before every step that one side shows the other (see fault_injection.py)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import strand

pytestmark = pytest.mark.crash

HERE = Path(__file__).parent
HOOK = HERE.parent / "hatch_build.py"
BUILD = "import hatch_build, pathlib; hatch_build._compile(pathlib.Path('strand'))"

PASSED = {
    "producing": {
        "strand_set_status",
        "strand_ring_bell",
        "strand_claim_slots",
        "strand_publish",
        "strand_producer_arm",
        "strand_sleep",
    },
    "consuming": {"enter", "advance_read", "strand_mark_left", "strand_arm", "strand_sleep"},
    "last-consumer": {"enter", "advance_read", "strand_mark_left"},
    "resetting": {"strand_reset", "strand_ring_bell", "strand_publish"},
    "aborting": {"strand_signal_abort", "strand_ring_bell"},
}


@pytest.fixture(scope="session")
def instrumented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a copy of the package whose C code passes points.h."""
    folder = tmp_path_factory.mktemp("injected")
    if not HOOK.exists() or shutil.which("cc") is None:
        pytest.skip("needs a C compiler and the package's sources")
    shutil.copy(HOOK, folder)
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(Path(strand.__file__).parent, folder / "strand", ignore=ignored)
    flags = {"NATIVE_CFLAGS": f"-include {HERE / 'points.h'} -O1 -w"}
    subprocess.run(
        [sys.executable, "-c", BUILD], cwd=folder, env={**os.environ, **flags}, check=True
    )
    return folder


@pytest.mark.sample(1)
@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("version", ["v5", "v6"])
@pytest.mark.parametrize("scenario", list(PASSED))
def test_every_step_may_be_the_last_or_the_slowest(
    instrumented: Path, scenario: str, version: str, how: str
) -> None:
    reached: set[str] = set()
    for _ in range(3):  # on a busy machine a process may never find a ring full, and so never sleep
        done = subprocess.run(
            [sys.executable, "-X", "dev", str(HERE / "fault_injection.py"), scenario, version, how],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(instrumented), *sys.path])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        reached |= set(done.stdout.split())
        if reached >= PASSED[scenario]:
            return
    assert reached >= PASSED[scenario]
