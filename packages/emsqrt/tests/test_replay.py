"""Runs done again from their manifests alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emsqrt import Engine, EngineConfig, Manifest, scan
from emsqrt.cli import main
from emsqrt.plan import plan_to_json
from emsqrt.replay import replay
from sennit_core.errors import UsageError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text("k,v\n" + "".join(f"{n * 7 % 1000},{n}\n" for n in range(1000)))
    return path


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_a_manifest_is_enough_to_run_again(source: Path, tmp_path: Path, name: str) -> None:
    manifest = scan(source).sort("k").sink(tmp_path / name).run("64MiB")
    again = Manifest.from_json(json.loads(json.dumps(manifest.to_json())))
    done = replay(again, mem_cap="96MiB")
    assert done.is_same
    assert [each.verdict for each in (*done.inputs, *done.outputs)] == ["same", "same"]
    assert done.manifest is not None
    assert done.manifest.rows_out == 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", name]


@pytest.mark.slow
def test_a_changed_output_is_named_with_its_offset(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    manifest = scan(source).sort("k").sink(out).run("32MiB")
    whole = out.read_bytes()
    out.write_bytes(whole[:50] + b"?" + whole[51:])
    (found,) = replay(manifest).outputs
    assert (found.verdict, found.offset) == ("changed", 50)
    out.write_bytes(whole[:-1])
    (found,) = replay(manifest).outputs
    assert (found.verdict, found.offset) == ("changed", len(whole) - 1)
    out.unlink()
    (found,) = replay(manifest).outputs
    assert found.verdict == "missing"
    source.write_bytes(source.read_bytes().replace(b"999", b"998"))
    done = replay(manifest)
    assert (done.inputs[0].verdict, done.outputs, done.is_same) == ("changed", (), False)
    source.unlink()
    assert replay(manifest).inputs[0].verdict == "missing"


def test_a_manifest_that_was_tampered_with_is_refused(source: Path, tmp_path: Path) -> None:
    manifest = scan(source).sort("k").sink(tmp_path / "out.csv").run("32MiB")
    document = manifest.to_json()
    document["plan"] = plan_to_json(scan(source).sort("v").sink(tmp_path / "out.csv").plan)
    with pytest.raises(UsageError):
        replay(Manifest.from_json(document))
    with pytest.raises(UsageError, match="has no plan"):
        replay(Manifest.from_json({**document, "plan": {}}))


@pytest.mark.slow
def test_a_folder_of_partitions_is_compared_file_by_file(source: Path, tmp_path: Path) -> None:
    rows = scan(source).select("v", part="k % 3")
    sink = rows.sink(tmp_path / "parts", format="parquet", partition_by=["part"])
    with Engine(EngineConfig()) as engine:
        done = replay(engine.run(sink.plan), engine=engine)
    assert done.is_same
    assert len(done.outputs) == 3


@pytest.mark.slow
def test_the_verb_has_a_status_of_its_own(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, manifest = tmp_path / "out.csv", tmp_path / "m.json"
    sort = ["sort", str(source), str(out), "--by", "k", "--manifest", str(manifest)]
    assert main([*sort, "--mem-cap", "4GiB"]) == 0  # what the tests before it hold counts too
    assert main(["replay", str(manifest), "--mem-cap", "20MiB"]) == 0
    assert "the same" in capsys.readouterr().out
    out.write_text("k,v\n")
    assert main(["replay", str(manifest), "--json"]) == 8
    assert json.loads(capsys.readouterr().out)["outputs"][0]["verdict"] == "changed"
    assert main(["replay", str(source)]) == 5
