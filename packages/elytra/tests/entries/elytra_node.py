"""Runs a node in a process of its own until its standard input closes: for tests that kill it."""

import importlib.util
import sys
from pathlib import Path

if __name__ == "__main__":
    world = Path(__file__).parents[1] / "conftest.py"
    spec = importlib.util.spec_from_file_location("elytra_world", world)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["elytra_world"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.running_node(Path(sys.argv[1])) as node:
        print(node.url, flush=True)  # noqa: T201 - its parent reads it
        sys.stdin.read()
