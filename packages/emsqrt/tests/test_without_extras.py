"""What the base install cannot do says which packages it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import sys
sys.modules.update(pyarrow=None, numpy=None, ormsgpack=None)
from emsqrt import scan
from emsqrt.cli import main
from emsqrt.planner import estimate_work, optimize
from sennit_core.errors import Unsupported
rows = scan("in.csv")
try:
    {asked}
except Unsupported as error:
    assert 'pip install "sennit-emsqrt[arrow]"' in error.hint
    sys.exit(2)
"""


@pytest.mark.parametrize(
    "asked",
    [
        "rows.schema()",
        "rows.collect()",
        "list(rows.batches())",
        "rows.sink('out.csv').run(in_process=True)",
        "rows.sink('out.parquet').run()",
        "estimate_work(optimize(rows.plan))",
        "sys.exit(main(['stats', 'in.csv']))",
        "sys.exit(main(['doctor', 'in.csv']))",
        "sys.exit(main(['race', 'in.csv', 'sort']))",
    ],
)
def test_what_needs_the_arrow_extra_says_so(asked: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a\n1\n")
    run = subprocess.run(
        [sys.executable, "-c", PROBE.format(asked=asked)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, "Traceback" in run.stderr) == (2, False), run.stderr
