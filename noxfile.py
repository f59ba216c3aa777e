"""The sessions of the repository; `nox` without arguments runs the checks of a commit.

Checks run in the environment that `./platform test` prepared. `alone(<package>)`, which is part of
the nightly, is different: it installs that package by its path into a fresh environment, which
proves that each package works without the others.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))
from workspace import packages  # noqa: E402 - a tool of the repository, which is not installed

MEMBERS = packages()
# What `pip install` needs to install each package by its path with all its extras.
PACKAGES = {
    member.name: f"{member.folder}[{','.join(member.extras)}]"
    if member.extras
    else f"{member.folder}"
    for member in MEMBERS
}
SOURCES = [f"{member.folder}/src" for member in MEMBERS]
TEST_FOLDERS = [f"{member.folder}/tests" for member in MEMBERS]
TEST_TOOLS = (
    "pytest",
    "pytest-timeout",
    "hypothesis",
    "psutil",
    "jsonschema",
    "httpx",
    "websockets",
)
# What a package's tests need in addition, such as the engines that they compare with.
ORACLES = {member.name: member.test_requirements for member in MEMBERS}

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ("plain",)
nox.options.stop_on_first_error = False
LAYERS = "integration/test_layers.py"
STATIC = ("lint", "types", "imports", "tidy", "js")
"""What a plain run does next to its tests: these use one core, and tests often wait."""

Check = Callable[..., None]


def budget(minutes: float) -> Callable[[Check], Check]:
    """Print a session's duration, and fail it if it exceeds its time budget."""

    def wrap(check: Check) -> Check:
        @functools.wraps(check)
        def timed(session: nox.Session, *args: str) -> None:
            started = time.monotonic()
            check(session, *args)
            took = (time.monotonic() - started) / 60
            session.log(f"took {took:.1f} of {minutes:g} minutes")
            if took > minutes:
                session.error(f"over budget: {took:.1f} of {minutes:g} minutes")

        return timed

    return wrap


def here(session: nox.Session, *command: str, **environment: str) -> None:
    """Run a tool from nox's own environment."""
    binaries = Path(sys.executable).parent
    path = f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"
    program = shutil.which(command[0], path=path) or command[0]
    # An empty value ends what a caller may have set; any other, "0" too, sets it. Without saved
    # byte code, each process that a test starts would compile all that it imports.
    unset = {"PYTHONDEVMODE": "", "PYTHONDONTWRITEBYTECODE": ""}
    environment = {"PATH": path, **unset, **environment}
    session.run(program, *command[1:], external=True, env=environment)


NIGHTLY = "--hypothesis-profile=nightly"
"""What the nightly gives to pytest: more examples of each property, and developer mode."""

WORKERS = str(min(os.cpu_count() or 2, 8) + 2)
"""Processes that run tests: two more than cores, because tests often wait for processes they started."""


def run_tests(session: nox.Session, *arguments: str, extra: Sequence[str] | None = None) -> None:
    """Run tests in several processes, a file in one of them, and show which ones run.

    Files are begun in the order of the arguments, not those with the most tests first, as xdist would:
    files of few tests, which start nodes and wait for them, would come last and leave cores idle.
    """
    spread = ("-p", "live_line", "-n", WORKERS, "--dist", "loadfile", "--no-loadscope-reorder")
    pytest_here(session, "-q", *spread, *arguments, extra=extra)


def npm(session: nox.Session, script: str) -> None:
    """Run a script of the npm workspace with the machine's Node, or the environment's."""
    here(session, "npm", "run", "--silent", script)


def pytest_here(session: nox.Session, *arguments: str, extra: Sequence[str] | None = None) -> None:
    """Run pytest, for the nightly in Python's developer mode.

    The mode checks memory that C code uses and how coroutines are used, for a tenth of the CPU
    time. Other runs do without: a leaked file or socket is an error of `filterwarnings` there too.
    The environment sets it because workers take only that from their parent; the `conftest.py` of
    the repository ends it for the processes that tests start.

    Args:
        session: the session.
        arguments: for pytest.
        extra: further ones in place of those that the user gave to the session.
    """
    given = session.posargs if extra is None else extra
    command = (sys.executable, "-m", "pytest", *arguments, *given)
    here(session, *command, PYTHONDEVMODE="1" if NIGHTLY in command else "")


def compile_tests() -> subprocess.Popen[bytes]:
    """Start to save the byte code of all tests.

    Each process of a run collects all tests. In a fresh clone they would all compile, at the same
    time, what one of them can save for the others: 60 CPU seconds for four of them.
    """
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", *TEST_FOLDERS, "integration"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,  # what fails to compile fails in the run, which shows it
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
    )


@nox.session(venv_backend="none")
@budget(25)
def plain(session: nox.Session) -> None:
    """Run what a commit must pass: all tests that are not nightly, and the static checks."""
    here(session, "ruff", "check", ".")
    state = ROOT / ".platform"
    state.mkdir(exist_ok=True)
    with (state / "static-checks.log").open("w+") as log:
        command = [sys.executable, "-m", "nox", "--non-interactive", "-s", *STATIC]
        checks = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        session.log(f"{', '.join(STATIC)} run at the same time; their output follows the tests'")
        try:
            compiling = compile_tests()
            build_playground(session)
            compiling.wait()
            # Tests that wait for processes run while static checks use a core; short ones fill the end.
            # The session `imports` runs the tests of layers.
            folders = ("integration", "--ignore", LAYERS, *reversed(TEST_FOLDERS))
            # Apart: a browser's driver runs an event loop in the thread of the tests.
            run_tests(session, "-m", "not nightly and not e2e", *folders)
            run_tests(session, "-m", "e2e and not nightly", "integration/e2e")
        finally:
            status = checks.wait()
            log.seek(0)
            print(log.read())
    if status:
        session.error(f"one of {', '.join(STATIC)} failed; its output is above")


@nox.session(venv_backend="none")
@budget(10)
def lint(session: nox.Session) -> None:
    """Run ruff, the C formatter if installed, eslint, prettier and tsc."""
    here(session, "ruff", "check", ".")
    here(session, "ruff", "format", "--check", ".")
    if shutil.which("clang-format"):
        sources = [str(path) for path in sorted((ROOT / "packages").glob("*/src/**/*.[ch]"))]
        here(session, "clang-format", "--dry-run", "--Werror", *sources)
    here(session, sys.executable, "-m", "sennit.playground", "install")
    for script in ("lint", "format:check", "typecheck"):
        npm(session, script)


@nox.session(venv_backend="none")
@budget(15)
def types(session: nox.Session) -> None:
    """Run mypy in strict mode over all packages, their tests and the tools."""
    here(session, "mypy", *SOURCES, *TEST_FOLDERS, "integration", "tools", "noxfile.py")


@nox.session(venv_backend="none")
def imports(session: nox.Session) -> None:
    """Check the allowed imports between packages."""
    here(session, "lint-imports")
    pytest_here(session, LAYERS, "-q", "-m", "not nightly")


@nox.session(venv_backend="none")
def tidy(session: nox.Session) -> None:
    """Check sizes, names, versions, changelog fragments, addresses and paths."""
    pytest_here(session, "tools", "-q")


@nox.session(venv_backend="none")
@budget(20)
def tests(session: nox.Session) -> None:
    """Run the tests of every package, or of the folders and files named."""
    named = any(
        (ROOT / argument.partition("::")[0]).exists()
        for option, argument in pairwise(("", *session.posargs))
        if option not in ("-k", "-m")
    )
    run_tests(session, "-m", "not crash and not nightly", *([] if named else TEST_FOLDERS))


@nox.session(venv_backend="none")
@budget(10)
def js(session: nox.Session) -> None:
    """Run the tests of the browser code."""
    here(session, sys.executable, "-m", "sennit.playground", "install")
    npm(session, "test")


@nox.session(venv_backend="none")
@budget(6)
def quick(session: nox.Session) -> None:
    """Run ruff, the tidiness checks and the short tests of all packages, or of those named."""
    unknown = [name for name in session.posargs if name not in PACKAGES]
    if unknown:
        session.error(f"no such package: {unknown[0]}; the packages are {', '.join(PACKAGES)}")
    chosen = [PACKAGES[name].partition("[")[0] for name in session.posargs or PACKAGES]
    here(session, "ruff", "check", *(chosen if session.posargs else ["."]))
    here(session, "ruff", "format", "--check", *(chosen if session.posargs else ["."]))
    folders = [f"{folder}/tests" for folder in chosen]
    arguments = ["-m", "not slow and not crash and not nightly", "tools", *folders]
    run_tests(session, *arguments, extra=())


@nox.session
@nox.parametrize("package", [nox.param(name, id=name) for name in PACKAGES])
def alone(session: nox.Session, package: str) -> None:
    """Test one package, installed alone into a fresh environment."""
    constraints = Path(session.create_tmp()) / "constraints.txt"
    constraints.write_text(pins("runtime") + pins("dev"))
    wanted = [f"./{PACKAGES[package]}", *TEST_TOOLS, *ORACLES.get(package, ())]
    session.install("-c", str(constraints), *wanted)
    folder = PACKAGES[package].partition("[")[0]
    arguments = ["-m", "not crash and not nightly", f"{folder}/tests", *session.posargs]
    session.run("python", "-X", "dev", "-m", "pytest", "-q", *arguments)


def pins(name: str) -> str:
    """Return a lock's pins without hashes: pip cannot combine path installs with hashes."""
    text = (ROOT / "lock" / f"{name}.txt").read_text()
    return re.sub(r" \\\n(?:\s+--hash=\S+(?: \\\n|\n))+", "\n", text)


@nox.session(venv_backend="none")
@budget(10)
def integration(session: nox.Session) -> None:
    """Run integration tests across packages, with real processes."""
    here(session, sys.executable, "-m", "sennit.playground", "install")
    run_tests(session, "-m", "not crash and not nightly and not e2e", "integration")


@nox.session(venv_backend="none")
@budget(10)
def e2e(session: nox.Session) -> None:
    """Test the playground in a real browser against a real node."""
    build_playground(session)
    run_tests(session, "-m", "e2e and not nightly", "integration/e2e")


@nox.session(venv_backend="none")
@budget(10)
def crash(session: nox.Session) -> None:
    """Run crash tests, which kill real processes at named points."""
    run_tests(session, "-m", "crash and not nightly", *TEST_FOLDERS, "integration")


@nox.session(venv_backend="none")
def chaos(session: nox.Session) -> None:
    """Run long tests with random kills and slow peers."""
    pytest_here(session, "-q", "integration/chaos", "-m", "nightly or not nightly", NIGHTLY)


@nox.session(venv_backend="none")
def sanitize(session: nox.Session) -> None:
    """Build the C with ASan and UBSan and run its tests."""
    here(session, sys.executable, "tools/sanitize.py", *session.posargs)


@nox.session(venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Fuzz EM-√'s kernel: all targets, or the one named, for the seconds given (60)."""
    here(session, sys.executable, "tools/fuzz.py", *session.posargs)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Run all benchmarks, or the named ones; each prints a table with its peers."""
    chosen = session.posargs or sorted(p.stem for p in (ROOT / "benchmarks").glob("bench_*.py"))
    if any(name.startswith(("bench_strand", "bench_emsqrt")) for name in chosen):
        install_optional(session, "bench")
    for name in chosen:
        here(session, sys.executable, f"benchmarks/{name}.py")


def install_optional(session: nox.Session, lock_name: str) -> None:
    """Install a lock that tests and benchmarks can do without: they say what they leave out."""
    if uv := shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"):
        command = [uv, "pip", "install", "--quiet", "--python", sys.executable]
    else:
        command = [sys.executable, "-m", "pip", "install", "--quiet"]
    try:
        here(session, *command, "--require-hashes", "--no-deps", "-r", f"lock/{lock_name}.txt")
    except nox.command.CommandFailed:
        session.warn(f"lock/{lock_name}.txt could not be installed; the reason is above")


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Run all snippets of READMEs and pages; check that all CLI verbs are documented."""
    pytest_here(session, "-q", "integration/test_docs.py")


@nox.session(venv_backend="none")
def build(session: nox.Session) -> None:
    """Build wheels and sdists of all packages into dist/, the playground in the gateway's."""
    build_playground(session)
    here(session, sys.executable, "tools/release.py", "build")


@nox.session(venv_backend="none")
def release_check(session: nox.Session) -> None:
    """Check that wheels pin siblings by version, contain no URLs, and install from a folder."""
    here(session, sys.executable, "tools/release.py", "check")


@nox.session(venv_backend="none")
def lock(session: nox.Session) -> None:
    """Update the lock files."""
    here(session, sys.executable, "tools/lock.py")


@nox.session(venv_backend="none")
def playground(session: nox.Session) -> None:
    """Install the browser code's packages and export the playground."""
    build_playground(session)


def build_playground(session: nox.Session) -> None:
    """Export the playground if its sources have changed."""
    here(session, sys.executable, "-m", "sennit.playground", "build")


@nox.session(venv_backend="none")
def nightly(session: nox.Session) -> None:
    """Run all sessions of a plain run, then the long ones."""
    alone_sessions = [f"alone({name})" for name in PACKAGES]  # each is notified by its whole name
    session.notify("plain", (NIGHTLY, *session.posargs))
    for name in ("docs", *alone_sessions, "sanitize", "chaos", "release_check"):
        session.notify(name)
    install_optional(session, "ray")
    # `integration/chaos` has a session of its own, with nothing next to it.
    folders = (*TEST_FOLDERS, "integration", "--ignore", "integration/chaos")
    run_tests(session, "-m", "nightly and not e2e", NIGHTLY, *folders)
    run_tests(session, "-m", "nightly and e2e", NIGHTLY, "integration/e2e")
