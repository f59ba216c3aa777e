"""Step `arrived` of executors: send rows that another node has computed, in the format of a request.

They are checked first, as a fault in data of another node costs this executor alone. No engine reads them,
so they keep the types that they have.

Request: `file` (an Arrow IPC stream), `format`, `maxRows`. Response: `rows`, `truncated`, `columns`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from emsqrt.io.formats import open_format, type_name
from sennit_core.arrow_ipc import open_arrow
from sennit_core.errors import BadInput, Corrupt

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["send_arrived"]


def send_arrived(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Send the rows.

    Raises:
        Corrupt: They are not what they should be.
    """
    what = "the rows that another node has returned"
    try:
        with (
            pa.OSFile(request["file"]) as source,
            open_arrow(source, what) as reader,
            open_format(
                request["format"], reader.schema, context.emit, max_rows=request["maxRows"]
            ) as writer,
        ):
            for batch in reader:
                context.check()
                writer.write(batch)
    except BadInput as error:
        raise Corrupt(what, expected="Arrow data", found=str(error)[:200]) from error
    return {
        "rows": writer.rows,
        "truncated": writer.truncated,
        "columns": [{"name": each.name, "type": type_name(each)} for each in writer.schema],
        "inputs": [],
    }
