"""The verbs of a document: their keys, the required ones, and the key of a bare value.

The same table is used by the reader and for the JSON Schema that editors use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

TEXT: Json = {"type": "string"}
COUNT: Json = {"type": ["integer", "string"], "minimum": 0}
NUMBER: Json = {"type": ["number", "string"]}
FLAG: Json = {"type": ["boolean", "string"]}
OBJECT: Json = {"type": "object"}
TEXTS: Json = {"anyOf": [TEXT, {"type": "array", "items": TEXT}]}
NAMED: Json = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
COLUMNS: Json = {"anyOf": [TEXT, NAMED, {"type": "array", "items": {"anyOf": [TEXT, NAMED]}}]}
NAMES: Json = {"anyOf": [NAMED, TEXTS]}
FIELDS: Json = {
    "anyOf": [
        NAMED,
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": TEXT, "type": TEXT, "nullable": {"type": "boolean"}},
                "required": ["name", "type"],
                "additionalProperties": False,
            },
        },
    ]
}
SORT_KEY: Json = {
    "anyOf": [
        TEXT,
        {
            "type": "object",
            "properties": {"expr": TEXT, "descending": FLAG, "nulls_first": FLAG},
            "required": ["expr"],
            "additionalProperties": False,
        },
    ]
}
SORT_KEYS: Json = {"anyOf": [SORT_KEY, {"type": "array", "items": SORT_KEY}]}
ROWS: Json = {"$ref": "#/$defs/rows"}
SEVERAL_ROWS: Json = {"anyOf": [TEXT, {"type": "array", "items": ROWS}]}


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb.

    Args:
        keys: the JSON Schema of each key's value.
        required: keys that must be present.
        bare: the key of a value without keys, such as `expr` in `filter: "a > 1"`.
        summary: shown by editors.
    """

    summary: str
    keys: Mapping[str, Json]
    required: tuple[str, ...] = ()
    bare: str | None = None
    bare_schema: Json = field(default_factory=dict)


VERBS: dict[str, Verb] = {
    "scan": Verb(
        "Read files, or a dataset of the node.",
        {
            "source": TEXTS,
            "dataset": TEXT,
            "snapshot": TEXT,
            "format": TEXT,
            "schema": FIELDS,
            "columns": TEXTS,
            "options": OBJECT,
        },
        bare="source",
    ),
    "from": Verb("Continue with a named input.", {"input": TEXT}, ("input",), bare="input"),
    "filter": Verb(
        "Keep the rows for which the condition is true.", {"expr": TEXT}, ("expr",), bare="expr"
    ),
    "project": Verb(
        'Compute exactly these columns: "name", "a * 2 AS b" or {b: "a * 2"}.',
        {"columns": COLUMNS},
        ("columns",),
        bare="columns",
    ),
    "rename": Verb(
        'Rename columns: {old: new} or ["old AS new"].',
        {"names": NAMES},
        ("names",),
        bare="names",
    ),
    "with_column": Verb(
        "Add columns, or replace those of that name.",
        {"name": TEXT, "expr": TEXT, "columns": COLUMNS},
    ),
    "aggregate": Verb(
        'Group rows: aggs are "COUNT(*)", "SUM(x) AS total" or {total: "SUM(x)"}.',
        {"group_by": COLUMNS, "aggs": COLUMNS},
        ("aggs",),
    ),
    "sort": Verb(
        'Order the rows by "name" or "amount desc nulls first".',
        {"by": SORT_KEYS},
        ("by",),
        bare="by",
    ),
    "top_k": Verb(
        "Keep the first rows of a sort order.",
        {"by": SORT_KEYS, "count": COUNT, "offset": COUNT},
        ("by", "count"),
    ),
    "distinct": Verb("Keep one row of each set of equal rows.", {"columns": TEXTS}, bare="columns"),
    "limit": Verb(
        "Pass on a number of rows.", {"count": COUNT, "offset": COUNT}, ("count",), "count"
    ),
    "sample": Verb(
        "Keep a fraction of the rows, or a number of them.",
        {"fraction": NUMBER, "count": COUNT, "seed": COUNT},
        bare="fraction",
    ),
    "explode": Verb(
        "Make one row of each item of a list.",
        {"column": TEXT, "as": TEXT, "outer": FLAG, "position": TEXT},
        ("column",),
        bare="column",
    ),
    "join": Verb(
        "Join with the rows of another input.",
        {
            "with": ROWS,
            "on": NAMES,
            "how": {"enum": ["inner", "left", "right", "full", "semi", "anti", "cross"]},
            "suffix": TEXT,
        },
        ("with",),
    ),
    "union": Verb(
        "Append the rows of other inputs.",
        {"with": SEVERAL_ROWS, "by_name": FLAG},
        ("with",),
        bare="with",
    ),
    "window": Verb(
        'Add columns computed from other rows: {n: "row_number()"}.',
        {"partition_by": TEXTS, "order_by": SORT_KEYS, "functions": NAMES},
        ("functions",),
    ),
    "expect": Verb(
        "Fail the run unless the rows meet these conditions.",
        {"unique": TEXTS, "not_null": TEXTS, "rows": TEXT},
    ),
    "sink": Verb(
        "Write the rows to a file.",
        {"destination": TEXT, "format": TEXT, "options": OBJECT},
        ("destination",),
        bare="destination",
    ),
}
SYNONYMS = {
    "select": "project",
    "map": "rename",
    "lateral": "explode",
    "with_columns": "with_column",
    "group": "aggregate",
}
"""Alternative names of verbs."""
OTHER_KEYS = {
    "map": {"expr": "names"},
    "window": {"partitions": "partition_by"},
    "explode": {"alias": "as"},
    "lateral": {"alias": "as"},
}
"""Alternative names of keys, by verb; older documents use them."""
