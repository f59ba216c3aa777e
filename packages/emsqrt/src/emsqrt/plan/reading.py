"""Convert untrusted JSON to plan nodes, strictly: every error has a JSON Pointer."""

from __future__ import annotations

from emsqrt.expr.document import EXACT_INTEGER_MAX, Entry, Json
from emsqrt.expr.errors import BadPlan
from emsqrt.plan.nodes import (
    FILE_FORMATS,
    NODES_MAX,
    STREAM_FORMATS,
    TARGET_FORMATS,
    Custom,
    DatasetRef,
    Files,
    FileTarget,
    Plan,
    Scan,
    Sink,
    Source,
    StreamTarget,
    Target,
)
from emsqrt.plan.reading_operators import READERS, Reader
from sennit_core.errors import SennitError, Unsupported
from sennit_core.schema import Schema

RESERVED_OPERATORS = ("map_rows", "flat_map_rows", "map_batches", "reduce")


def read_plan(root: Entry) -> Plan:
    """Return the plan at `root`: validated from the root down, built from the scans up."""
    entries = [root]
    for entry in entries:  # grows while it is walked: a parent always precedes its inputs
        entries += inputs_at(entry)
        if len(entries) > NODES_MAX:
            raise BadPlan(pointer="", reason=f"more than {NODES_MAX} operators")
    made: dict[str, Plan] = {}
    for entry in reversed(entries):
        inputs = [made[below.pointer] for below in inputs_at(entry)]
        made[entry.pointer] = _read_operator(entry, inputs)
    return made[root.pointer]


def inputs_at(entry: Entry) -> list[Entry]:
    """Return the entries of the operators that the one at `entry` reads from."""
    if not isinstance(entry.value, dict):
        return []
    if isinstance(entry.value.get("inputs"), list):
        return entry.at("inputs").items()
    return [entry.at(name) for name in ("input", "left", "right") if name in entry.value]


def _read_operator(entry: Entry, inputs: list[Plan]) -> Plan:
    if not isinstance(entry.value, dict) or "op" not in entry.value:
        entry.members(("op",), list(entry.value) if isinstance(entry.value, dict) else ())
    name = entry.at("op").text()
    if name in RESERVED_OPERATORS:
        raise Unsupported(f"operator {name} is reserved, and no engine has it yet")
    entry.at("op").choice(["scan", *_READERS])
    if name == "scan":
        return _read_scan(entry)
    read = _READERS[name]
    _check_inputs(entry, read.inputs)
    entry.members(("op", *read.inputs, *read.required), read.optional)
    return read.read(entry, inputs)


def _check_inputs(entry: Entry, names: tuple[str, ...]) -> None:
    if names == ("inputs",) and "inputs" in entry.value:
        entry.at("inputs").items(minimum=1)
    for name in names:
        if name not in entry.value:
            entry.fail(f"member {name!r} is missing: only a scan reads from nothing")


def _read_scan(entry: Entry) -> Scan:
    entry.members(("op", "source"), ("schema", "columns"))
    schema, columns = entry.find("schema"), entry.find("columns")
    return Scan(
        _read_source(entry.at("source")),
        None if schema is None else _read_schema(schema),
        None if columns is None else tuple(item.text() for item in columns.items(minimum=1)),
    )


def _read_source(entry: Entry) -> Source:
    if isinstance(entry.value, dict) and "dataset" in entry.value:
        return _read_dataset(entry)
    entry.members(("files", "format"), ("options",))
    options = entry.find("options")
    return Files(
        tuple(item.text() for item in entry.at("files").items(minimum=1)),
        entry.at("format").choice(FILE_FORMATS),
        {} if options is None else _read_options(options),
    )


def _read_dataset(entry: Entry) -> DatasetRef:
    entry.members(("dataset",), ("snapshot", "version", "timestamp"))
    found = {name: entry.find(name) for name in ("snapshot", "version", "timestamp")}
    if sum(each is not None for each in found.values()) > 1:
        entry.fail("one of snapshot, version and timestamp")
    snapshot, version, timestamp = found.values()
    number: int | str | None = None
    if version is not None:
        number = version.text() if isinstance(version.value, str) else version.count()
    return DatasetRef(
        entry.at("dataset").text(),
        None if snapshot is None else snapshot.text(),
        number,
        None if timestamp is None else timestamp.text(),
    )


def _read_options(entry: Entry) -> Json:
    if not isinstance(entry.value, dict):
        entry.members(())
    _check_integers(entry)
    return dict(entry.value)


def _check_integers(entry: Entry) -> None:
    """Refuse integers that canonical JSON cannot represent exactly."""
    if isinstance(entry.value, int) and abs(entry.value) > EXACT_INTEGER_MAX:
        entry.fail(f"{entry.value} is greater than 2^53 - 1")
    keys = entry.value if isinstance(entry.value, dict) else ()
    for child in keys or (range(len(entry.value)) if isinstance(entry.value, list) else ()):
        _check_integers(entry.at(child))


def _read_schema(entry: Entry) -> Schema:
    try:
        return Schema.from_json(entry.value)
    except Unsupported:
        raise
    except (SennitError, KeyError, TypeError, ValueError, AttributeError) as error:
        entry.fail(f"not a schema: {error}")


def _read_target(entry: Entry) -> Target:
    if isinstance(entry.value, dict) and "stream" in entry.value:
        return StreamTarget(entry.members(("stream",)).at("stream").choice(STREAM_FORMATS))
    entry.members(("file", "format"), ("options",))
    options = entry.find("options")
    return FileTarget(
        entry.at("file").text(),
        entry.at("format").choice(TARGET_FORMATS),
        {} if options is None else _read_options(options),
    )


def _read_sink(entry: Entry, inputs: list[Plan]) -> Plan:
    return Sink(inputs[0], _read_target(entry.at("target")))


def _read_custom(entry: Entry, inputs: list[Plan]) -> Plan:
    options, schema = entry.find("options"), entry.find("schema")
    return Custom(
        tuple(inputs),
        entry.at("name").text(),
        {} if options is None else _read_options(options),
        None if schema is None else _read_schema(schema),
    )


_READERS: dict[str, Reader] = {
    **READERS,
    "sink": Reader(_read_sink, ("target",)),
    "custom": Reader(_read_custom, ("name",), ("options", "schema"), ("inputs",)),
}
