"""TPC-H's tables, made by tpchgen-cli in a folder that is given, when they are not there yet."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_DECIMALS = {
    "lineitem": ("l_quantity", "l_extendedprice", "l_discount", "l_tax"),
    "orders": ("o_totalprice",),
    "customer": ("c_acctbal",),
}
DECIMAL_TYPES = {table: dict.fromkeys(names, "DECIMAL(15,2)") for table, names in _DECIMALS.items()}


@dataclass(frozen=True)
class Tables:
    """A folder of TPC-H data."""

    folder: Path

    def path(self, table: str, kind: str = "csv", scale: float = 1) -> Path:
        """Return a table's file, made first when it is missing.

        Args:
            table: lineitem, orders, customer.
            kind: csv or parquet.
            scale: 1 is 6,001,215 lines and 766 MB of CSV in lineitem.
        """
        place = self.folder / f"sf{scale:g}"
        found = place / f"{table}.{kind}"
        if not found.exists():
            place.mkdir(parents=True, exist_ok=True)
            print(f"making {found}", file=sys.stderr, flush=True)
            words = [_generator(), kind, "-s", f"{scale:g}", f"--tables={table}"]
            subprocess.run([*words, f"--output-dir={place}"], check=True, stdout=sys.stderr)
        return found


def _generator() -> str:
    beside = Path(sys.executable).with_name("tpchgen-cli")
    found = str(beside) if beside.exists() else shutil.which("tpchgen-cli")
    if found is None:
        raise SystemExit("tpchgen-cli makes the data, and is not installed (lock/bench.txt has it)")
    return found
