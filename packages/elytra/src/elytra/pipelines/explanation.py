"""`explain`: where each step of a pipeline runs, how the plan is split, and what is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from elytra.backends.remote.plans import why_not_remote
from elytra.local.derived import DerivedSource
from elytra.pipelines.source_columns import Reader
from elytra.splitter import Cut, DatasetSize, Rules, Split, Whole, datasets_of, split
from emsqrt.plan import DatasetRef, Files, Plan, Scan, explain, rewrite, scans_of
from sennit_core.errors import NotFound, UsageError
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from elytra.local.runner import LocalRunner
    from elytra.pipelines.origin import Origin


def explain_pipeline(plan: Plan, origin: Origin, engine: str | None = None) -> str:
    """Return a plan as text, in the order in which it runs; nothing runs.

    Args:
        plan: A pipeline's plan.
        origin: Where it would run. A node is asked for the sizes of the datasets.
        engine: The node is also asked where tasks would run with this engine; None for no such question.
    """
    if engine is not None and not isinstance(origin.runner, Places):
        raise UsageError(
            f"engine {engine!r} is one of a node", hint="explain() of a local pipeline"
        )
    if origin.local is not None:
        return "\n".join(_local_lines(plan, origin.local))
    assert isinstance(origin.runner, Reader), "what is no local session is a node"
    sizes = [_read_line(ref, origin.runner) for ref in datasets_of(plan)]
    cut = split(plan, origin.schema, rules=Rules(_size_of(origin.runner)))
    lines = _split_lines(cut) if isinstance(cut, Split) else _whole_lines(cut)
    lines += [*sizes, _remote_line(cut)]
    if engine is not None:
        assert isinstance(origin.runner, Places), "checked above"
        lines += _place_lines(origin.runner.explain(plan, engine))
    return "\n".join(lines)


# A node


def _remote_line(cut: Cut) -> str:
    reason = why_not_remote(cut)
    if reason is not None:
        return f'with engine "browser" it runs on the node too: {reason}'
    return 'with engine "browser" workers run the steps at the shards'


@runtime_checkable
class Places(Protocol):
    """What of a client knows where a plan would run."""

    def explain(self, plan: Plan, engine: str = "auto") -> dict[str, Any]:
        """Return the document of `POST /api/plans/explain`."""
        ...


def _place_lines(found: Mapping[str, Any]) -> list[str]:
    lines = [f"engine {found['engine']}:"]
    for each in found["nodes"]:
        tasks = "1 task" if each["tasks"] == 1 else f"{each['tasks']} tasks"
        line = f"  {each['node']}: {tasks}, reads {format_bytes(each['readBytes'])}"
        if each["fetchedBytes"]:
            line += f", fetches {format_bytes(each['fetchedBytes'])} of them"
        if each["sentBytes"] is None:
            line += ", sends its whole result"
        elif each["sentBytes"]:
            line += f", sends about {format_bytes(each['sentBytes'])}"
        lines.append(line)
    lines += [
        f"  no node that can be reached has {each['shards']} shards of {each['dataset']}"
        for each in found["missing"]
    ]
    return lines


def _split_lines(cut: Split) -> list[str]:
    lines = []
    for part in cut.parts:
        shard = Files((f"<shard of {part.source.dataset}>",), "parquet")
        lines.append(
            "at each shard:" if len(cut.parts) == 1 else f"at each shard of {part.source.dataset}:"
        )
        lines += _indented(explain(cut.shard_plan(part, shard, over=_all_shards)))
    if cut.merge_steps is None:
        return [*lines, "the result: the shards' rows, in order"]
    merge = cut.merge_plan(Files(("<partials>",), "arrow"), _all_shards)
    return [*lines, "merge:", *_indented(explain(merge))]


def _all_shards(scan: Scan, ref: DatasetRef) -> Plan:
    return replace(scan, source=Files((f"<shards of {ref.dataset}>",), "parquet"))


def _size_of(node: Reader) -> Callable[[DatasetRef], DatasetSize | None]:
    def size(ref: DatasetRef) -> DatasetSize | None:
        try:
            found = node.dataset(ref.dataset)
        except NotFound:  # a view
            return None
        return DatasetSize(found.shards, found.bytes)

    return size


def _whole_lines(cut: Whole) -> list[str]:
    named = cut.over(_all_shards)
    reason = f" ({cut.because})" if cut.because else ""
    return [f"in one task{reason}:", *_indented(explain(named))]


def _read_line(ref: DatasetRef, node: Reader) -> str:
    try:
        found = node.dataset(ref.dataset)
    except NotFound:
        return f"reads {ref.dataset}: a view, whose query runs first"
    shards = "1 shard" if found.shards == 1 else f"{found.shards} shards"
    return f"reads {ref.dataset}: {found.rows} rows, {format_bytes(found.bytes)} in {shards}"


# This machine


def _local_lines(plan: Plan, local: LocalRunner) -> list[str]:
    lines: list[str] = []
    for scan in scans_of(plan):
        source = scan.source
        if isinstance(source, DerivedSource) and source.derivation is not None:
            made = source.derivation
            lines += _local_lines(made.upstream, local)
            place = "kept in a file" if made.keep else "in this process, outside of the cap"
            lines.append(f"{place}:")
            lines.append(f"  {made}")
    cap = format_bytes(local.engine.config.mem_cap_bytes)
    return [*lines, f"in one process of this machine, under {cap}:", *_indented(_estimated(plan))]


def _estimated(plan: Plan) -> str:
    """Return the operators, with estimates where all rows are in files."""
    from emsqrt.te import explain_plan

    if any(isinstance(scan.source, DerivedSource) for scan in scans_of(plan)):
        return explain(rewrite(plan, _without_source))
    return str(explain_plan(plan))


def _without_source(node: Plan) -> Plan:
    if isinstance(node, Scan) and isinstance(node.source, DerivedSource):
        return replace(node, source=Files((f"<{node.source.derivation}>",), "arrow"))
    return node


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]
