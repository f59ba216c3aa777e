"""What importing the package brings in, and what it shows."""

import subprocess
import sys

import strand


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
