"""Repeat a run from its manifest alone, and compare its outputs byte for byte."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from emsqrt.fingerprints import input_info
from emsqrt.io.sources import open_source
from emsqrt.manifest import InputInfo, Manifest
from emsqrt.plan import Files, FileTarget, Plan, Scan, Sink, plan_from_json, plan_hash, rewrite
from sennit_core.errors import NotFound, Unsupported, UsageError

if TYPE_CHECKING:
    from emsqrt.engine import Engine

Verdict: TypeAlias = Literal["same", "changed", "missing", "unknown"]
_COMPARE_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Finding:
    """The comparison of one file.

    Args:
        path: as the manifest names it.
        verdict: "unknown" for an input that cannot be read twice.
        offset: the first byte that differs, None where nothing differs or nothing was compared.
    """

    path: str
    verdict: Verdict
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """The comparison of a repeated run with the first.

    Args:
        inputs: each input, compared with its fingerprint.
        outputs: each output, compared with what the second run wrote; empty when an input has
            changed.
        manifest: of the second run; None when it did not run.
    """

    inputs: tuple[Finding, ...]
    outputs: tuple[Finding, ...]
    manifest: Manifest | None = None

    @property
    def is_same(self) -> bool:
        """Whether it ran and reproduced every byte."""
        return self.manifest is not None and all(each.verdict == "same" for each in self.outputs)


def replay(
    manifest: Manifest, *, mem_cap: str | int | None = None, engine: Engine | None = None
) -> Replay:
    """Run a manifest's plan again into a scratch folder next to its output, and compare.

    Args:
        manifest: of a run that ended in a file.
        mem_cap: another cap than the first run's; the output must not depend on it.
        engine: runs the plan; an engine with the first run's seed when None.

    Raises:
        UsageError: the manifest has no plan, or its plan does not match its hash.
        Unsupported: the run read standard input, or did not write to a local file.
    """
    from emsqrt.config import EngineConfig
    from emsqrt.engine import Engine

    plan = _plan_of(manifest)
    folder = Path(manifest.folder)
    inputs = tuple(_look_at(info, folder) for info in manifest.inputs)
    if any(finding.verdict in ("changed", "missing") for finding in inputs):
        return Replay(inputs, ())
    written = folder / plan.target.path  # type: ignore[union-attr]
    parent = written.parent if written.parent.is_dir() else None
    with tempfile.TemporaryDirectory(prefix=".replay-", dir=parent) as scratch:
        again = _moved(plan, folder, Path(scratch))
        engine = engine or Engine(EngineConfig(seed=manifest.seed))
        done = engine.run(again, mem_cap=mem_cap or manifest.cap_bytes)
        outputs = tuple(_compare(written, Path(scratch) / written.name))
    return Replay(inputs, outputs, done)


def _plan_of(manifest: Manifest) -> Sink:
    if not manifest.plan:
        raise UsageError(
            "this manifest has no plan", hint="an older version wrote it; run it again"
        )
    plan = plan_from_json(manifest.plan)
    if plan_hash(plan) != manifest.plan_hash:
        raise UsageError("the manifest's plan does not match its hash")
    if not isinstance(plan, Sink) or not isinstance(plan.target, FileTarget):
        raise Unsupported("the run wrote its rows to a stream, so there is no file to compare")
    if plan.target.path == "-" or "://" in plan.target.path:
        raise Unsupported(f"cannot compare {plan.target.path}: it is not a local file")
    if any(info.path == "-" for info in manifest.inputs):
        raise Unsupported("the run read standard input, which cannot be read again")
    return plan


def _look_at(info: InputInfo, folder: Path) -> Finding:
    try:
        found = input_info(open_source(_absolute(info.path, folder)))
    except NotFound:
        return Finding(info.path, "missing")
    if not info.fingerprint:
        return Finding(info.path, "unknown")
    same = found["fingerprint"] == info.fingerprint and found["bytes"] == info.bytes
    return Finding(info.path, "same" if same else "changed")


def _moved(plan: Sink, folder: Path, scratch: Path) -> Plan:
    """Return the plan with absolute input paths and with its outputs in the scratch folder."""

    def change(node: Plan) -> Plan:
        if isinstance(node, Scan) and isinstance(node.source, Files):
            source = node.source
            options = dict(source.options)
            if options.get("rejectFile"):
                options["rejectFile"] = str(scratch / "rejected")
            paths = tuple(_absolute(path, folder) for path in source.paths)
            return replace(node, source=replace(source, paths=paths, options=options))
        if isinstance(node, Sink) and isinstance(node.target, FileTarget):
            target = str(scratch / Path(node.target.path).name)
            return replace(node, target=replace(node.target, path=target))
        return node

    return rewrite(plan, change)


def _absolute(path: str, folder: Path) -> str:
    return path if "://" in path else str(folder / path)


def _compare(written: Path, again: Path) -> Iterator[Finding]:
    """Compare two files, or the files of two folders."""
    if not again.is_dir():
        yield _compare_files(str(written), written, again)
        return
    names = {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    if written.is_dir():
        names |= {path.relative_to(written) for path in written.rglob("*") if path.is_file()}
    for name in sorted(names):
        yield _compare_files(str(written / name), written / name, again / name)


def _compare_files(name: str, written: Path, again: Path) -> Finding:
    if not written.is_file():
        return Finding(name, "missing")
    if not again.is_file():
        return Finding(name, "changed", 0)
    offset = 0
    with written.open("rb") as one, again.open("rb") as other:
        while True:
            left, right = one.read(_COMPARE_BYTES), other.read(_COMPARE_BYTES)
            if left != right:
                pairs = zip(left, right, strict=False)
                first = next((at for at, (a, b) in enumerate(pairs) if a != b), None)
                return Finding(
                    name,
                    "changed",
                    offset + (min(len(left), len(right)) if first is None else first),
                )
            if not left:
                return Finding(name, "same")
            offset += len(left)
