"""Uploads of results: bounded one by one and together."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from elytra.backends.remote.uploads import Upload, UploadBudget
from sennit_core.errors import BadInput, Busy, Conflict, TooLarge


def upload(
    path: Path, budget: UploadBudget, *, bytes_max: int = 100, is_alive: bool = True
) -> Upload:
    return Upload(path, bytes_max, budget, alive=lambda: is_alive, done=lambda: None)


def send(path: Path, budget: UploadBudget, data: bytes, sha256: str | None = None) -> None:
    with upload(path, budget) as receiving:
        receiving.write(data)
        receiving.finish(sha256 or hashlib.sha256(data).hexdigest())


def test_a_complete_upload_has_its_name(tmp_path: Path) -> None:
    send(tmp_path / "a", UploadBudget(10), b"rows")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"rows"


def test_one_that_is_not_complete_leaves_nothing(tmp_path: Path) -> None:
    budget = UploadBudget(10)
    with pytest.raises(BadInput):
        send(tmp_path / "a", budget, b"rows", "0" * 64)
    with pytest.raises(TooLarge), upload(tmp_path / "a", budget, bytes_max=3) as receiving:
        receiving.write(b"rows")
    with pytest.raises(Conflict), upload(tmp_path / "a", budget, is_alive=False) as receiving:
        receiving.write(b"rows")
    assert list(tmp_path.iterdir()) == []
    send(tmp_path / "b", budget, b"x" * 10)


def test_all_uploads_together_have_a_limit(tmp_path: Path) -> None:
    budget = UploadBudget(10)
    send(tmp_path / "a", budget, b"x" * 4)
    send(tmp_path / "a", budget, b"x" * 5)  # instead of the first
    with pytest.raises(Busy):
        send(tmp_path / "b", budget, b"x" * 6)
    budget.remove(tmp_path / "a")
    budget.remove(tmp_path / "a")
    send(tmp_path / "b", budget, b"x" * 10)
    with pytest.raises(Busy):
        send(tmp_path / "c", budget, b"x")
