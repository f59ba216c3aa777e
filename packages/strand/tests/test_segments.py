"""Where rings live: sealed anonymous memory and files of our own."""

import errno
import os
import pickle
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

import strand
from sennit_core.errors import BadInput, Conflict, NotFound, StorageFull, Unsupported, UsageError
from strand import owners

PATH = Path("/dev/shm/strand-test-segment")


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are what is compared


def test_an_anonymous_ring_cannot_be_truncated(ring: strand.Ring) -> None:
    for size in (0, 1 << 20):
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(ring.fileno(), size)


def test_a_named_ring_is_private_and_goes_with_its_maker() -> None:
    with strand.open_ring(strand.BLOCKS, 8, 4096, name="test-segment"):
        facts = PATH.stat()
        assert stat.S_IMODE(facts.st_mode) == 0o600
        assert facts.st_blocks * 512 >= facts.st_size  # allocated, not promised
        strand.attach_ring(name="test-segment").close()
        assert PATH.exists()
    assert not PATH.exists()


def test_a_name_is_used_once() -> None:
    with (
        strand.open_ring(strand.BLOCKS, 8, 4096, name="test-segment"),
        pytest.raises(Conflict, match="test-segment"),
    ):
        strand.open_ring(strand.BLOCKS, 8, 4096, name="test-segment")


@pytest.mark.parametrize("name", ["", "a/b", "../x", "x" * 201])
def test_a_name_is_no_path(name: Any) -> None:
    with pytest.raises(UsageError):
        strand.open_ring(strand.BLOCKS, 8, 4096, name=name)


def test_attaching_to_nothing_says_so() -> None:
    with pytest.raises(NotFound):
        strand.attach_ring(name="test-nothing")
    with pytest.raises(UsageError):
        strand.attach_ring()


def test_an_empty_file_is_no_segment(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with (tmp_path / "empty").open("rb+") as file, pytest.raises(BadInput):
        strand.attach_ring(file.fileno())


@pytest.mark.parametrize("name", [None, "test-segment"])
def test_no_room_is_an_error_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, name: Any) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    before = descriptors()
    with pytest.raises(StorageFull):
        strand.open_ring(strand.BLOCKS, 8, 4096, name=name)
    assert descriptors() == before
    assert not PATH.exists()


def test_a_closed_ring_leaves_no_descriptor() -> None:
    before = descriptors()
    with strand.open_ring(strand.BLOCKS, 8, 4096) as ring:
        with ring.producer() as writer, ring.consumer():
            writer.write_bytes(b"x")
        strand.attach_ring(ring.fileno()).close()
    assert descriptors() == before


def test_an_unsupported_platform_is_reported_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(Unsupported, match="Linux"):
        strand.open_ring(strand.BLOCKS)


def test_errors_pickle() -> None:
    error = strand.PayloadTooLarge(limit_bytes=8, actual_bytes=9)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.limit_bytes, str(copy)) == (8, str(error))


def test_an_identity_names_one_process_of_one_boot() -> None:
    mine = owners.identify()
    assert mine.pid == os.getpid()
    assert mine.start_ticks > 0
    assert mine == owners.identify(os.getpid())
    assert owners.identify(2**22 + 1).pid == 0
