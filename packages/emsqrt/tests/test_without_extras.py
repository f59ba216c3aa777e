"""The base install reads texts; other features name the packages that they need."""

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
    {snippet}
except Unsupported as error:
    assert "pip install 'pyarrow" in error.hint
    sys.exit(2)
"""


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "snippet",
    [
        "rows.collect()",
        "list(rows.batches())",
        "rows.sink('out.csv').run(in_process=True)",
        "rows.sink('out.parquet').run()",
        "scan('in.parquet').schema()",
        "sys.exit(main(['doctor', 'in.parquet']))",
    ],
)
def test_features_of_the_arrow_extra_name_it(snippet: str, tmp_path: Path) -> None:
    ask(snippet, tmp_path, 2)


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "snippet",
    [
        "assert str(rows.schema()) == 'a: Int64'",
        "assert str(scan('in.jsonl').schema()) == 'a: Int64'",
        "assert estimate_work(optimize(rows.plan)).nodes[-1].rows_out == 2",
        "assert main(['stats', 'in.csv']) == 0",
        "assert main(['race', 'in.csv', 'sort', '--engines', 'em']) == 0",
        "assert main(['doctor', 'in.csv']) == 0",
        "assert main(['doctor', 'in.jsonl']) == 0",
    ],
)
def test_texts_are_looked_at_without_it(snippet: str, tmp_path: Path) -> None:
    ask(snippet, tmp_path, 0)


def ask(snippet: str, folder: Path, code: int) -> None:
    (folder / "in.csv").write_text("a\n1\n2\n")
    (folder / "in.jsonl").write_text('{"a": 1}\n')
    (folder / "in.parquet").write_bytes(b"PAR1")
    run = subprocess.run(
        [sys.executable, "-c", PROBE.format(snippet=snippet)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, "Traceback" in run.stderr) == (code, False), run.stderr
