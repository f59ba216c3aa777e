"""The catalog and the server's properties, as the tables that Flight SQL defines.

DuckDB, which runs the statements, has one catalog and one schema, whose names work in a query:
`select * from memory.main.flights`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lake.flight.messages import CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTables
from lake.views.access import views_shown
from lake.views.views import ViewInfo

if TYPE_CHECKING:
    from lake.lake import Lake
    from lake.statements.limits import Requester
    from sennit_core.records import DatasetInfo

__all__ = ["CATALOG", "SCHEMA", "catalogs", "empty", "schemas", "sql_info", "table_types", "tables"]

CATALOG, SCHEMA = "memory", "main"
_TABLE, _VIEW = "TABLE", "VIEW"


def _fields(**types: pa.DataType) -> pa.Schema:
    """Return a schema; a name that ends in `_` is of a column that may be null."""
    return pa.schema(
        pa.field(name.removesuffix("_"), kind, nullable=name.endswith("_"))
        for name, kind in types.items()
    )


_TEXT, _INT = pa.string(), pa.int32()
_KEYS = _fields(
    pk_catalog_name_=_TEXT, pk_db_schema_name_=_TEXT, pk_table_name=_TEXT, pk_column_name=_TEXT,
    fk_catalog_name_=_TEXT, fk_db_schema_name_=_TEXT, fk_table_name=_TEXT, fk_column_name=_TEXT,
    key_sequence=_INT, fk_key_name_=_TEXT, pk_key_name_=_TEXT, update_rule=pa.uint8(),
    delete_rule=pa.uint8(),
)  # fmt: skip
_PRIMARY_KEYS = _fields(
    catalog_name_=_TEXT, db_schema_name_=_TEXT, table_name=_TEXT, column_name=_TEXT,
    key_sequence=_INT, key_name_=_TEXT,
)  # fmt: skip
_XDBC_TYPES = _fields(
    type_name=_TEXT, data_type=_INT, column_size_=_INT, literal_prefix_=_TEXT, literal_suffix_=_TEXT,
    create_params_=pa.list_(pa.field("item", _TEXT, nullable=False)), nullable=_INT,
    case_sensitive=pa.bool_(), searchable=_INT, unsigned_attribute_=pa.bool_(),
    fixed_prec_scale=pa.bool_(), auto_increment_=pa.bool_(), local_type_name_=_TEXT,
    minimum_scale_=_INT, maximum_scale_=_INT, sql_data_type=_INT, datetime_subcode_=_INT,
    num_prec_radix_=_INT, interval_precision_=_INT,
)  # fmt: skip
_EMPTY = {"keys": _KEYS, "primary keys": _PRIMARY_KEYS, "types": _XDBC_TYPES}

_VALUE = pa.dense_union(
    [
        pa.field("string_value", pa.string()),
        pa.field("bool_value", pa.bool_()),
        pa.field("bigint_value", pa.int64()),
        pa.field("int32_bitmask", pa.int32()),
        pa.field("string_list", pa.list_(pa.string())),
        pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32()))),
    ]
)
_INFO = _fields(info_name=pa.uint32(), value=_VALUE)
_SQL_INFO: dict[int, str | bool | int] = {
    0: "Sennit",  # the name of the server
    1: version("sennit-lake"),
    2: pa.__version__,
    3: False,  # not read-only
    4: True,  # SQL
    5: False,  # no Substrait
    8: 0,  # no transactions
    9: True,  # cancellation
    10: True,  # bulk ingestion
    11: False,  # not in transactions
    500: False,  # no statements that create catalogs
    501: False,  # or schemas
    502: True,  # but tables
    503: 1,  # identifiers are case-insensitive
    504: '"',
}
"""FlightSql.proto, enum SqlInfo."""
_BITMASKS = frozenset((8, 503))


def sql_info(_lake: Lake, _requester: Requester, command: CommandGetSqlInfo) -> pa.Table:
    """The properties that are asked for, or all."""
    wanted = {k: v for k, v in _SQL_INFO.items() if not command.info or k in command.info}
    children: list[list[Any]] = [[] for _ in range(_VALUE.num_fields)]
    codes, offsets = [], []
    for name, value in wanted.items():
        code = 0 if isinstance(value, str) else 1 if isinstance(value, bool) else 2
        code = 3 if name in _BITMASKS else code
        codes.append(code)
        offsets.append(len(children[code]))
        children[code].append(value)
    union = pa.UnionArray.from_dense(
        pa.array(codes, pa.int8()),
        pa.array(offsets, pa.int32()),
        [pa.array(c, _VALUE.field(i).type) for i, c in enumerate(children)],
        [_VALUE.field(i).name for i in range(_VALUE.num_fields)],
    )
    return pa.table([pa.array(list(wanted), pa.uint32()), union.cast(_VALUE)], schema=_INFO)


def catalogs(_lake: Lake, _requester: Requester, _command: object) -> pa.Table:
    """The one catalog."""
    return pa.table([[CATALOG]], schema=_fields(catalog_name=_TEXT))


def schemas(_lake: Lake, _requester: Requester, command: CommandGetDbSchemas) -> pa.Table:
    """The one schema."""
    shown = command.catalog in (None, CATALOG) and _like(command.db_schema_filter_pattern, SCHEMA)
    columns = [[CATALOG], [SCHEMA]] if shown else [[], []]
    return pa.table(columns, schema=_fields(catalog_name_=_TEXT, db_schema_name=_TEXT))


def table_types(_lake: Lake, _requester: Requester, _command: object) -> pa.Table:
    """Datasets and views."""
    return pa.table([[_TABLE, _VIEW]], schema=_fields(table_type=_TEXT))


def tables(lake: Lake, requester: Requester, command: CommandGetTables) -> pa.Table:
    """The datasets and views that the user may read and whose names match."""
    schema = _fields(catalog_name_=_TEXT, db_schema_name_=_TEXT, table_name=_TEXT, table_type=_TEXT)
    if command.include_schema:
        schema = schema.append(pa.field("table_schema", pa.binary(), nullable=False))
    rows: list[Sequence[object]] = []
    if _is_asked(command):
        for info in _listed(lake, requester, command):
            if _like(command.table_name_filter_pattern, info.name):
                kind = _VIEW if isinstance(info, ViewInfo) else _TABLE
                row: list[object] = [CATALOG, SCHEMA, info.name, kind]
                if command.include_schema:
                    row.append(info.schema.to_arrow().serialize().to_pybytes())
                rows.append(row)
    columns = [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(schema)]
    return pa.table(columns, schema=schema)


def empty(name: str) -> Any:
    """Return a function for what a lake does not have: keys, and the types of XDBC."""
    return lambda _lake, _requester, _command: _EMPTY[name].empty_table()


def _is_asked(command: CommandGetTables) -> bool:
    return command.catalog in (None, CATALOG) and _like(command.db_schema_filter_pattern, SCHEMA)


def _listed(
    lake: Lake, requester: Requester, command: CommandGetTables
) -> Iterator[DatasetInfo | ViewInfo]:
    """Yield the datasets, then the views, if their types are asked for."""
    if not command.table_types or _TABLE in command.table_types:
        yield from lake.policies.list(requester)
    if not command.table_types or _VIEW in command.table_types:
        yield from views_shown(lake.catalog, lake.policies, requester)


def _like(pattern: str | None, text: str) -> bool:
    """Whether a text matches a pattern of LIKE; without one it does."""
    if pattern is None:
        return True
    # Several % in a row would make the search exponential.
    parts = re.sub("%+", "%", pattern).split("%")
    return _matches([re.escape(p).replace("_", ".") for p in parts], text)


def _matches(parts: list[str], text: str) -> bool:
    """Whether the parts occur in this order; the first at the start, the last at the end.

    One search a part, in place of one regular expression for all, whose time may be exponential in
    the number of `%`.
    """
    first, *rest = parts
    found = re.match(first, text, re.DOTALL)
    if found is None or not rest:
        return found is not None and found.end() == len(text)
    position = found.end()
    for part in rest[:-1]:
        found = re.compile(part, re.DOTALL).search(text, position)
        if found is None:
            return False
        position = found.end()
    # The last part has a fixed length, so its only place is the end.
    last = re.compile(f"(?:{rest[-1]})\\Z", re.DOTALL).search(text, position)
    return last is not None
