"""Build a fuzz target of EM-√'s kernel and run it for a while.

    python tools/fuzz.py [target] [seconds]

Uses AFL++ if it is installed, else clang's libFuzzer; with neither, mutated seeds run once under
the sanitizers. Fails when a target crashes, and prints the path of the input.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FUZZ = ROOT / "packages" / "emsqrt" / "fuzz"
KERNEL = ROOT / "packages" / "emsqrt" / "src" / "emsqrt" / "_kernel"
SANITIZERS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
MUTATIONS = 3000


def main(arguments: list[str]) -> int:
    """Fuzz one target, or all of them; return an exit status."""
    names = [path.stem.removeprefix("fuzz_") for path in sorted(FUZZ.glob("fuzz_*.c"))]
    wanted = [name for name in arguments if name in names] or names
    seconds = next((int(word) for word in arguments if word.isdigit()), 60)
    with tempfile.TemporaryDirectory(prefix="emsqrt-fuzz-") as scratch:
        return max(fuzz(name, seconds, Path(scratch)) for name in wanted)


def fuzz(name: str, seconds: int, scratch: Path) -> int:
    """Run one target with the available fuzzer."""
    seeds = scratch / f"{name}-seeds"
    shutil.copytree(FUZZ / "seeds" / name, seeds)
    if shutil.which("afl-fuzz") and _works(["afl-cc"], scratch):
        return _with_afl(name, seconds, seeds, scratch)
    if _works(["clang", "-fsanitize=fuzzer"], scratch):
        program = _build(name, scratch, ["clang"], ["-fsanitize=fuzzer"], standalone=False)
        command = [
            str(program),
            f"-max_total_time={seconds}",
            f"-artifact_prefix={scratch}/",
            str(seeds),
        ]
        return subprocess.run(command, check=False).returncode
    print(f"{name}: neither AFL++ nor libFuzzer is installed; mutating the seeds", flush=True)
    return _mutated(_build(name, scratch, ["cc"], [], standalone=True), seeds)


def _with_afl(name: str, seconds: int, seeds: Path, scratch: Path) -> int:
    program = _build(name, scratch, ["afl-cc"], [], standalone=True)
    out = scratch / f"{name}-found"
    quiet = {
        "AFL_NO_UI": "1",
        "AFL_SKIP_CPUFREQ": "1",
        "AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES": "1",
        "AFL_NO_AFFINITY": "1",
    }
    command = ["afl-fuzz", "-V", str(seconds), "-m", "none", "-i", str(seeds), "-o", str(out)]
    with (scratch / f"{name}-log").open("wb") as log:
        status = subprocess.run(
            [*command, "--", str(program)], env={**os.environ, **quiet}, stdout=log, check=False
        ).returncode
    if status:
        print((scratch / f"{name}-log").read_text("utf-8", "replace")[-2000:])
        return status
    facts = {}
    for line in (out / "default" / "fuzzer_stats").read_text("utf-8").splitlines():
        key, _, value = line.partition(":")
        facts[key.strip()] = value.strip()
    shown = ("execs_done", "execs_per_sec", "corpus_count", "bitmap_cvg", "saved_crashes")
    print(f"{name}: " + ", ".join(f"{key} {facts.get(key)}" for key in shown), flush=True)
    crashes = sorted((out / "default" / "crashes").glob("id*"))
    return _keep(name, crashes)


def _mutated(program: Path, seeds: Path) -> int:
    """Run the seeds, and mutations of them, in one process."""
    source = random.Random(1)
    originals = [path.read_bytes() for path in sorted(seeds.iterdir())]
    for number in range(MUTATIONS):
        data = bytearray(source.choice(originals))
        for _ in range(source.randrange(1, 8)):
            data[source.randrange(len(data))] = source.randrange(256)
        (seeds / f"mutation-{number:05d}").write_bytes(data[: source.randrange(1, len(data) + 1)])
    files = sorted(map(str, seeds.iterdir()))
    done = subprocess.run([str(program), *files], check=False)
    print(f"{program.name}: {len(files)} inputs, status {done.returncode}", flush=True)
    return done.returncode


def _build(
    name: str, scratch: Path, compiler: list[str], flags: list[str], *, standalone: bool
) -> Path:
    program = scratch / f"fuzz_{name}"
    target = FUZZ / f"fuzz_{name}.c"
    needed = re.search(r"^ \* Needs (.*?)\.$", target.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert needed, "a target's comment ends with a line that says what it needs of the kernel"
    sources = [KERNEL / part for part in re.findall(r"\w+\.c", needed[1])]
    sources += [target, *([FUZZ / "standalone.c"] if standalone else [])]
    command = [*compiler, "-std=gnu11", *SANITIZERS, *flags, f"-I{KERNEL}", *map(str, sources)]
    subprocess.run([*command, "-lm", "-o", str(program)], check=True)
    return program


def _works(compiler: list[str], scratch: Path) -> bool:
    """Whether a compiler is installed with its sanitizers' libraries."""
    if not shutil.which(compiler[0]):
        return False
    empty = scratch / "empty.c"
    empty.write_text(
        "int LLVMFuzzerTestOneInput(const char *d, long n) { return !d && n; }\n"
        if len(compiler) > 1
        else "int main(void) { return 0; }\n"
    )
    command = [*compiler, *SANITIZERS, str(empty), "-o", str(scratch / "empty")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _keep(name: str, crashes: list[Path]) -> int:
    """Copy crashing inputs next to the seeds."""
    kept = FUZZ / "found" / name
    for path in crashes:
        kept.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, kept / path.name.replace(":", "-"))
        print(f"crash: {(kept / path.name).relative_to(ROOT)}", flush=True)
    return int(bool(crashes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
