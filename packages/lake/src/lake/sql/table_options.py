"""The options of CREATE TABLE: `WITH (encrypt = true)`, which DuckDB's parser accepts too."""

from __future__ import annotations

from dataclasses import dataclass

from lake.sql.statement_reader import StatementReader
from sennit_core.errors import SqlError, nearest

__all__ = ["TableOptions", "read_options"]

_NAMES = ("encrypt",)
_VALUES = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class TableOptions:
    """The options of a new dataset.

    Args:
        encrypt: Whether it is encrypted; None if the statement does not say.
    """

    encrypt: bool | None = None


def read_options(reader: StatementReader) -> TableOptions:
    """Read `WITH (name = value, …)` if it is next.

    Raises:
        SqlError: An option is unknown, there twice, or has no such value.
    """
    if not reader.accept("with"):
        return TableOptions()
    stop = reader.find((")",))
    found: dict[str, bool] = {}
    for start, end in reader.divide_brackets(reader.position):
        name = reader.unquoted(start).casefold()
        if name not in _NAMES:
            near = nearest(name, _NAMES)
            hint = f"did you mean {near}?" if near else f"options: {', '.join(_NAMES)}"
            raise SqlError(
                f"CREATE TABLE has no option {name!r}",
                offset=reader.tokens[start].start,
                hint=hint,
            )
        words = [reader.unquoted(index).casefold() for index in range(start + 1, end)]
        if name in found or words[:1] not in ([], ["="]) or words[1:] not in ([], *_SPELLED):
            raise SqlError(
                f"the option {name} is true or false, once",
                offset=reader.tokens[start].start,
                hint=f"write WITH ({name} = true)",
            )
        found[name] = _VALUES[words[1]] if words[1:] else True
    reader.position = stop + 1
    return TableOptions(**found)


_SPELLED = [[value] for value in _VALUES]
