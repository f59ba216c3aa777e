from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sennit_core.errors import Denied, UsageError
from sennit_core.private_files import claim_folder, make_private_folder


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder as a version with the default umask left it."""
    root = tmp_path / "data"
    (root / "objects").mkdir(parents=True)
    for name, mode in (("objects/a", 0o444), ("token", 0o644), ("private", 0o600)):
        (root / name).write_text("x")
        (root / name).chmod(mode)
    (root / "objects").chmod(0o775)
    root.chmod(0o755)
    return root


def test_every_folder_that_is_made_is_private(tmp_path: Path) -> None:
    made = make_private_folder(tmp_path / "a" / "b")

    assert [mode_of(made), mode_of(made.parent)] == [0o700, 0o700]


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match="is a file"):
        make_private_folder(tmp_path / "file")


def test_open_files_are_mended_and_named(folder: Path) -> None:
    claimed = claim_folder(folder)

    modes = {path.name: mode_of(path) for path in [folder, *folder.rglob("*")]}
    assert modes == {
        "data": 0o700, "objects": 0o700, "a": 0o400, "token": 0o600, "private": 0o600
    }  # fmt: skip
    assert claimed.mended == 4
    assert "token (0644, now 0600)" in claimed.messages[-1]
    assert claim_folder(folder).mended == 0


def test_the_target_of_a_link_is_not_changed(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o644)
    (folder / "link").symlink_to(outside)

    claim_folder(folder)

    assert mode_of(outside) == 0o644


def test_a_parent_that_others_can_write_to_is_named(folder: Path) -> None:
    folder.parent.chmod(0o777)
    try:
        assert any("rename or replace" in message for message in claim_folder(folder).messages)
        folder.parent.chmod(0o1777)  # as /tmp: only owners can rename
        assert claim_folder(folder).messages == ()
    finally:
        folder.parent.chmod(0o700)


def test_the_folder_of_another_account_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)

    with pytest.raises(Denied, match="belongs to user"):
        claim_folder(folder)
