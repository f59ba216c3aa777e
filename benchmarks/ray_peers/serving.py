"""What each contender does: get ready, then run the queries that are named on standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

Query = Callable[[Path], object]
"""Writes the rows of an answer to Parquet files in a folder, which is empty."""


def serve(queries: Mapping[str, Query]) -> None:
    """Run one query after the other; each line of the input is its name and the folder of its answer.

    Prints a line before the first one, and one after each.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr  # libraries print
    print(json.dumps(sorted(queries)), file=answers, flush=True)
    for line in sys.stdin:
        name, folder = json.loads(line)
        queries[name](Path(folder))
        print(json.dumps(name), file=answers, flush=True)
