"""What a network of nodes costs; ratios are of one run.

    python benchmarks/bench_lake_peers.py [--only transfer] [--megabytes 512] [--passes 5]

Sections: transfer (`lake_peers/transfer.py`).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from lake_peers import transfer

SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "transfer": lambda chosen: transfer.run(chosen.megabytes, chosen.passes),
}


def main() -> None:
    """Print the sections."""
    options = argparse.ArgumentParser(description="What a network of nodes costs.")
    options.add_argument("--only", choices=SECTIONS, action="append")
    options.add_argument("--megabytes", type=int, default=512)
    options.add_argument("--passes", type=int, default=5)
    chosen = options.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name in chosen.only or SECTIONS:
        SECTIONS[name](chosen)


if __name__ == "__main__":
    main()
