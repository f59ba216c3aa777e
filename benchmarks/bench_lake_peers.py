"""What a network of nodes costs; ratios are of one run.

    python benchmarks/bench_lake_peers.py [--only SECTION] [--passes 5] [--megabytes 512] [--scale 0.1]
        [--nodes 10 30 100 300 1000] [--plot FILE.svg] [--repaired 1000] [--rate 16777216]

Each section is a module of `lake_peers`: transfer of `--megabytes`; queries of TPC-H at `--scale`; membership
in networks of `--nodes`, drawn as `--plot`; repair of `--repaired` megabytes at `--rate` bytes a second.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from lake_peers import membership, queries, repair, transfer

SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "transfer": lambda chosen: transfer.run(chosen.megabytes, chosen.passes),
    "queries": lambda chosen: queries.run(chosen.scale, chosen.passes),
    "membership": lambda chosen: membership.run(chosen.nodes, chosen.plot),
    "repair": lambda chosen: repair.run(chosen.repaired, chosen.rate),
}


def main() -> None:
    """Print the sections."""
    options = argparse.ArgumentParser(description="What a network of nodes costs.")
    options.add_argument("--only", choices=SECTIONS, action="append")
    options.add_argument("--megabytes", type=int, default=512)
    options.add_argument("--passes", type=int, default=5)
    options.add_argument("--scale", type=float, default=0.1)
    options.add_argument("--nodes", type=int, nargs="+", default=[10, 30, 100, 300, 1000])
    options.add_argument("--plot", type=Path)
    options.add_argument("--repaired", type=int, default=1000)
    options.add_argument("--rate", type=int, default=16 << 20)
    chosen = options.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name in chosen.only or SECTIONS:
        SECTIONS[name](chosen)


if __name__ == "__main__":
    main()
