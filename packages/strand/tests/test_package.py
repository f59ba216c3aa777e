"""What importing the package brings in, and what it shows."""

import re
import subprocess
import sys

import strand
from sennit_core.testing import import_graph


def test_importing_strand_loads_nothing_third_party() -> None:
    program = (
        "import sys; before = set(sys.modules); import strand\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - sys.stdlib_module_names))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == "['sennit_core', 'strand']"


def test_the_facade_is_sorted_and_complete() -> None:
    assert strand.__all__ == sorted(strand.__all__)
    for name in strand.__all__:
        assert getattr(strand, name).__doc__


def test_each_module_imports_only_the_layers_before_it() -> None:
    """Lazily too, or for type checking: so no modules import each other in a ring."""
    stated = (strand.__doc__ or "").partition("before it: ")[2].partition(". ")[0]
    layers = [f"strand.{name}" for name in re.findall(r"`(\w+)`", stated)]
    graph = import_graph(strand)
    assert sorted(layers) == sorted([*graph, "strand._native"])
    for number, name in enumerate(layers):
        assert graph.get(name, set()) <= set(layers[:number]), name
