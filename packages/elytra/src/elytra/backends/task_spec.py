"""What a backend runs: a plan over named inputs, which any process or machine can run from its JSON.

A spec names no path. Its scans read inputs by name, each a shard (by its object id) or a partial of the
job; the backend decides where these bytes come from and where the rows go. On the node itself they are the
files of `NodeFiles`, which never leave it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from elytra.functions.step import is_function
from emsqrt.plan import (
    Files,
    FileTarget,
    Plan,
    Scan,
    Sink,
    StreamTarget,
    plan_from_json,
    plan_to_json,
    rewrite,
    walk,
)
from sennit_core.errors import TooLarge, Unsupported, UsageError

if TYPE_CHECKING:
    from lake.objects.verification import ShardFile

__all__ = ["InputKind", "NodeFiles", "TaskInput", "TaskLimits", "TaskSpec", "bound_plan"]

VERSION = 1
TEXT_BYTES_MAX = 16 << 20
INPUTS_MAX = 100_000
_NUMBER_MAX = 1 << 62

InputKind: TypeAlias = Literal["shard", "partial", "query"]
Output: TypeAlias = Literal["arrow", "parquet"]

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
_NAME = re.compile(r"[a-z]{1,16}-[0-9]{1,9}")
# What identifies an input: an object, a file name without folders, the name of a query.
_IDS = {
    "shard": re.compile(r"[0-9a-f]{64}"),
    "partial": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"),
    "query": _NAME,
}


@dataclass(frozen=True, slots=True)
class TaskInput:
    """One input of a task.

    Args:
        name: As the plan's scans name it: "shard-0".
        kind: A shard, a partial of the same job, or the rows of a query, which only the node has.
        id: The shard's object id; the partial's file name; the query's name.
    """

    name: str
    kind: InputKind
    id: str

    def __post_init__(self) -> None:
        _match(_NAME, self.name, "the name of an input")
        if self.kind not in get_args(InputKind):
            raise UsageError(f"a task has no input of the kind {self.kind!r}")
        _match(_IDS[self.kind], self.id, f"the id of a {self.kind}")


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """What a task may use; None for no limit of its own.

    Args:
        mem_cap_bytes: Memory of the execution; None for the worker's own cap.
        seconds: Time until its end, waiting for a worker's process included.
        output_bytes_max: Bytes of its result.
    """

    mem_cap_bytes: int | None = None
    seconds: float | None = None
    output_bytes_max: int | None = None

    def __post_init__(self) -> None:
        for name in ("mem_cap_bytes", "seconds", "output_bytes_max"):
            value = getattr(self, name)
            kinds = (int, float) if name == "seconds" else (int,)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < 1 << 62
            ):
                raise UsageError(f"a task's limit {name} is {value!r}, not a positive number")


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One execution of a plan, for a task or for a merge; an instance is always valid.

    Args:
        id: Identifies the execution in `Backend.stop`; never reused.
        job: The job's id.
        key: The task's key; "merge" for a merge.
        plan: Without a Sink; its scans read files whose names are those of `inputs`.
        inputs: What it reads.
        output: "arrow", a stream of Arrow IPC that the backend receives, or "parquet", a file.
        copy_bytes_max: The rows are in the report too, as the Arrow IPC stream `rows`, if it has no
            more bytes than this; 0 for never.
        limits: What it may use.
        user: The user on whose behalf it runs.

    Raises:
        UsageError: The plan reads something that is not among the inputs, or writes a file.
    """

    id: str
    job: str
    key: str
    plan: Plan
    inputs: tuple[TaskInput, ...]
    output: Output
    copy_bytes_max: int = 0
    limits: TaskLimits = TaskLimits()
    user: str = ""

    def __post_init__(self) -> None:
        for what in ("id", "job", "key"):
            _match(_ID, getattr(self, what), f"a task's {what}")
        if self.output not in get_args(Output):
            raise UsageError(f"a task's output is {self.output!r}, not arrow or parquet")
        copy = self.copy_bytes_max
        if isinstance(copy, bool) or not isinstance(copy, int) or not 0 <= copy < _NUMBER_MAX:
            raise UsageError(f"a task's copy_bytes_max is {copy!r}, not a number of bytes")
        if not isinstance(self.user, str) or len(self.user) > 256:
            raise UsageError("a task's user is not a text of at most 256 characters")
        self._check_plan()

    def _check_plan(self) -> None:
        names = {each.name for each in self.inputs}
        if len(names) < len(self.inputs) or len(names) > INPUTS_MAX:
            raise UsageError(f"a task's inputs have equal names, or are more than {INPUTS_MAX:,}")
        for node in walk(self.plan):
            if isinstance(node, Sink):
                raise UsageError("the plan of a task writes a file", hint="the backend does that")
            if not isinstance(node, Scan):
                continue
            if not isinstance(node.source, Files):
                raise UsageError("the plan of a task reads a dataset", hint="name its shards")
            unknown = next((path for path in node.source.paths if path not in names), None)
            if unknown is not None:
                raise UsageError(
                    f"the plan of task {self.id} reads {unknown[:100]!r}, which is not an input of it"
                )

    @property
    def has_functions(self) -> bool:
        """Whether the plan has Python functions."""
        return any(map(is_function, walk(self.plan)))

    def to_json(self, *, functions: bool = False) -> dict[str, Any]:
        """Return the spec for another process or machine.

        Args:
            functions: Whether it may have Python functions: only for machines of this node's own site.

        Raises:
            Unsupported: It reads the rows of a query, which only this node has, or has Python functions.
        """
        if not functions and self.has_functions:
            raise Unsupported(f"task {self.id} has Python functions, which leave no node")
        if any(each.kind == "query" for each in self.inputs):
            raise Unsupported(f"task {self.id} reads a view or under a policy, so only here")
        return {
            "v": VERSION,
            "id": self.id,
            "job": self.job,
            "key": self.key,
            "plan": plan_to_json(self.plan),
            "inputs": [{"name": x.name, "kind": x.kind, "id": x.id} for x in self.inputs],
            "output": self.output,
            "copyBytesMax": self.copy_bytes_max,
            "limits": {
                "memCapBytes": self.limits.mem_cap_bytes,
                "seconds": self.limits.seconds,
                "outputBytesMax": self.limits.output_bytes_max,
            },
            "user": self.user,
        }

    @classmethod
    def from_json(cls, source: str | bytes | Mapping[str, Any]) -> TaskSpec:
        """Read the form of `to_json`, which may come from anyone.

        Raises:
            UsageError: It is not a spec; the message says where.
            TooLarge: It has more than 16 MiB.
        """
        data = _members(_parsed(source), "a task", _MEMBERS)
        if data["v"] != VERSION:
            raise Unsupported(f"a task of version {data['v']!r}: this node has version {VERSION}")
        inputs = data["inputs"]
        if not isinstance(inputs, list) or len(inputs) > INPUTS_MAX:
            raise UsageError(f"a task's inputs are not a list of at most {INPUTS_MAX:,}")
        read = [_members(each, "an input", ("name", "kind", "id")) for each in inputs]
        if any(each["kind"] == "query" for each in read):
            raise UsageError("a task from elsewhere cannot read the rows of a query")
        limits = _members(data["limits"], "limits", ("memCapBytes", "seconds", "outputBytesMax"))
        if not isinstance(data["plan"], dict):
            raise UsageError("a task's plan is not an object")
        return cls(
            id=data["id"],
            job=data["job"],
            key=data["key"],
            plan=plan_from_json(data["plan"]),
            inputs=tuple(TaskInput(each["name"], each["kind"], each["id"]) for each in read),
            output=data["output"],
            copy_bytes_max=data["copyBytesMax"],
            limits=TaskLimits(limits["memCapBytes"], limits["seconds"], limits["outputBytesMax"]),
            user=data["user"],
        )


_MEMBERS = ("v", "id", "job", "key", "plan", "inputs", "output", "copyBytesMax", "limits", "user")


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """Where the inputs of a task are on this node, and where its result goes; never sent.

    Args:
        paths: The file of each input, by its name; a query's is its name.
        output: The output file.
        shards: The shards that are read, which are verified first.
        sources: Queries whose rows the plan reads, in the form of `lake.plan`.
        memory: The members of requests for temporary files in memory, if encrypted datasets are read.
        secret: The key that encrypts the output file; None for no encryption.
        datasets: The ids of the shards' datasets by their names.
        check_share: Of the results of remote workers that the node compares with its own, from 0 to 1.
            Here, because a worker that knew it could lie where nothing is compared.
    """

    paths: Mapping[str, str]
    output: Path
    shards: tuple[ShardFile, ...] = ()
    sources: tuple[Mapping[str, Any], ...] = ()
    memory: Mapping[str, Any] = field(default_factory=dict)
    secret: bytes | None = field(default=None, repr=False)
    datasets: Mapping[str, str] = field(default_factory=dict)
    check_share: float = 0.0


def bound_plan(task: TaskSpec, path_of: Callable[[str], str], output: Path) -> Sink:
    """Return the plan of a task over files, with the sink of its output.

    Args:
        task: The task.
        path_of: Returns the file of an input, by its name.
        output: The output file, if the task writes one itself.
    """

    def bound(node: Plan) -> Plan:
        if not isinstance(node, Scan):
            return node
        assert isinstance(node.source, Files), "checked by TaskSpec"
        paths = tuple(map(path_of, node.source.paths))
        return replace(node, source=replace(node.source, paths=paths))

    is_stream = task.output == "arrow"
    target = StreamTarget("arrow") if is_stream else FileTarget(str(output), task.output)
    return Sink(rewrite(task.plan, bound), target)


def _parsed(source: str | bytes | Mapping[str, Any]) -> object:
    if isinstance(source, Mapping):
        return source
    if len(source) > TEXT_BYTES_MAX:
        raise TooLarge("a task", TEXT_BYTES_MAX, len(source))
    try:
        return json.loads(source)
    except (ValueError, RecursionError) as problem:
        raise UsageError(f"a task is not JSON: {type(problem).__name__}") from None


def _members(value: object, what: str, names: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or set(value) != set(names):
        raise UsageError(f"{what} is not an object with the members {', '.join(names)}")
    return value


def _match(pattern: re.Pattern[str], value: object, what: str) -> None:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise UsageError(f"{what} is {str(value)[:100]!r}, which does not have its form")
