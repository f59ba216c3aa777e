"""A payload that the caller writes directly into the ring."""

from __future__ import annotations

from types import TracebackType

from sennit_core.errors import UsageError
from strand import layout
from strand.failures import Failure
from strand.producer import RingProducer

__all__ = ["PayloadClaim"]

_ALIGN = 64


class PayloadClaim:
    """Heap bytes of a block ring, claimed: `with claim as memory` fills and publishes them.

    An exception inside the `with` drops them; the writer can continue.
    """

    def __init__(self, writer: RingProducer, size: int) -> None:
        """Use `StrandWriter.claim_payload()`."""
        self._writer = writer
        self._claimed = size
        self._kept = size

    def shrink(self, size: int) -> None:
        """Keep only the first `size` of the claimed bytes."""
        if not 0 <= size <= self._claimed:
            raise UsageError(f"a payload of {self._claimed} bytes cannot shrink to {size}")
        self._kept = size

    def __enter__(self) -> memoryview:
        writer = self._writer
        if self._claimed > writer.payload_bytes_max:
            writer._fail(Failure.TOO_LARGE, None, self._claimed)  # noqa: SLF001 - of one package
        self._slot, self._seq = writer.claim_slot()
        try:
            start, self._offset = writer.claim_heap_bytes(self._claimed, _ALIGN)
        except BaseException:
            writer.abandon()
            raise
        self._memory = writer.memory[start : start + self._claimed]
        return self._memory

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        writer = self._writer
        if writer.closed:
            return
        if error is not None:
            writer.abandon()
            return
        if self._kept != self._claimed:
            writer._shrink(self._offset, self._kept)  # noqa: SLF001 - of one package
        layout.BLOCK_POINTER.pack_into(writer.memory, self._slot, self._offset, self._kept)
        writer.commit_slot(self._seq)
