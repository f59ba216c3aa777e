"""Results of pipelines over encrypted datasets: encrypted on the disk, with a key of the job's own.

The key is in the lake's `lake/keys.json`, wrapped like those of datasets, and goes with the job: what the
disk still has of its blocks is unreadable then. A result is decrypted into memory to be sent.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lake.encryption.files import EncryptedFile, EncryptedWriter
from sennit_core.errors import SennitError, StorageFull

if TYPE_CHECKING:
    from emsqrt.executor import Execution
    from lake.encryption.vault import Vault
    from lake.objects.durable import NewFile

__all__ = ["HeldExecution", "SealedResults", "Sink", "sealed", "without_values"]

_ENTRY = "job:"
_SAFE = frozenset(
    ("cancelled", "cap-too-small", "closed", "corrupt", "deadline", "storage-full", "unavailable")
)
"""Codes of errors that never quote a value."""


class SealedResults:
    """The encrypted results of a lake's jobs.

    Args:
        vault: Has the keys, and memory for decrypted files.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def create(self, job_id: str) -> bytes:
        """Create the key of a job, durable before its result.

        Raises:
            Denied: The lake has no key.
        """
        return self._vault.keys.create(_ENTRY + job_id)

    def open(self, job_id: str, paths: Sequence[Path], held: ExitStack) -> list[Path]:
        """Decrypt the files of a result; return their copies, which `held` removes.

        Raises:
            Denied: The lake has no key.
            StorageFull: There is no memory for them.
        """
        key = self._vault.keys.key(_ENTRY + job_id, what=f"the result of job {job_id}")
        files = [EncryptedFile(path, path.name, key) for path in paths]
        needed = sum(file.plain_bytes for file in files)
        held.enter_context(self._vault.cache.reserve(needed, f"the result of job {job_id}"))
        folder = held.enter_context(self._vault.folder())
        copies = []
        for file in files:
            copy = folder / file.path.name
            with file.open("rb") as source, copy.open("xb") as target:
                shutil.copyfileobj(source, target)
            copies.append(copy)
        return copies

    def forget(self, job_id: str) -> None:
        """Remove the key of a job that is gone."""
        self._forget(lambda each: each == job_id)

    def forget_others(self, jobs: Iterable[str]) -> None:
        """Remove all keys of jobs but those of these."""
        known = set(jobs)
        self._forget(lambda each: each not in known)

    def _forget(self, is_gone: Callable[[str], bool]) -> None:
        entries = [each for each in self._vault.keys.entries() if each.startswith(_ENTRY)]
        gone = [each for each in entries if is_gone(each.removeprefix(_ENTRY))]
        # If there is no room to write that, the next start does it.
        with suppress(StorageFull):
            if gone:
                self._vault.keys.forget(gone)


class Sink(Protocol):
    """What bytes are written to."""

    def write(self, data: memoryview, /) -> object:
        """Append bytes."""
        ...


@contextmanager
def sealed(file: NewFile, path: Path, key: bytes | None) -> Iterator[Sink]:
    """Open a file of a result for writing.

    Args:
        file: The file.
        path: Its path when it is complete.
        key: The job's key; None does not encrypt it.
    """
    if key is None:
        yield file
        return
    writer = EncryptedWriter(file.write, path.name, key)
    yield writer
    writer.finish()


def without_values(error: SennitError) -> dict[str, Any]:
    """Return an error as JSON that may be stored in a job's record, which is not encrypted."""
    document = error.to_json()
    if error.code in _SAFE:
        return document
    message = "the plan failed on a value, which is not shown: the job reads an encrypted dataset"
    hint = "the same query in SQL shows the error, which is not stored there"
    return {"error": message, "code": error.code, "hint": hint, "details": {}}


class HeldExecution:
    """An execution that holds decrypted files until it is closed.

    Args:
        start: Starts it.
        held: Removes the files.
    """

    def __init__(self, start: Callable[[], Execution], held: ExitStack) -> None:
        self._held = held
        try:
            self._execution = start()
        except BaseException:
            held.close()
            raise

    @property
    def done(self) -> bool:
        """As of the execution."""
        return self._execution.done

    def payloads(self) -> Iterator[memoryview]:
        """As of the execution."""
        return self._execution.payloads()

    def cancel(self) -> None:
        """As of the execution."""
        self._execution.cancel()

    def close(self) -> None:
        """Close the execution, and remove the files; may be called twice."""
        try:
            self._execution.close()
        finally:
            self._held.close()
