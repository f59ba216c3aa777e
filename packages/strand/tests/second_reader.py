"""A reader of rings that knows spec/strand-wire.md and `struct`, and nothing of the package."""

import json
import struct
from dataclasses import dataclass
from typing import Any

__all__ = ["RingBytes"]

WIDTHS = {
    5: (4, 4, 8, 4, 8, 2, 1, 1, 6, 4, 6, 6, 6, 6),
    6: (4, 4, 8, 4, 8, 2, 1, 1, 16, 4, 16, 16, 16, 16),
}
NUMBERS = {0: "<i", 1: "<I", 2: "<q", 3: "<f", 4: "<d", 5: "<H", 6: "<B", 7: "<?", 9: "<I"}
ELEMENTS = {12: "i", 13: "f"}
V5_VACANT = 0x7FFFFFFF


@dataclass(frozen=True)
class Field:
    """One field of the wire schema."""

    tag: int
    nullable: bool
    offset: int


class RingBytes:
    """A snapshot of the bytes of a ring."""

    def __init__(self, memory: Any) -> None:
        """Copy them, and read the static header."""
        self.bytes = bytes(memory)
        _, self.version, _, self.stride, self.capacity, self.heap = self.words("<6I", 0)
        self.heap_start = 4096 + self.capacity * self.stride
        length = self.words("<I", 88)[0]
        self.fields = []
        for at in range(94, 92 + length, 4):
            tag, flags, offset = self.words("<BBH", at)
            self.fields.append(Field(tag, bool(flags & 1), offset))
        size = self.words("<I", 92 + length)[0]
        self.metadata = json.loads(self.bytes[96 + length : 96 + length + size])

    def words(self, form: str, at: int) -> tuple[Any, ...]:
        return struct.unpack_from(form, self.bytes, at)

    @property
    def commit(self) -> int:
        return int(self.words("<Q", 3144)[0])

    @property
    def generation(self) -> int:
        return int(self.words("<I", 3096)[0])

    @property
    def join_position(self) -> int:
        return int(self.words("<Q", 3224)[0])

    @property
    def low_water(self) -> int:
        """The record below which the producer may overwrite."""
        attached: list[int] = []
        left: list[int] = []
        for at in range(3264, 3776, 64):
            read, state = self.words("<Q", at)[0], self.words("<I", at + 20)[0]
            if state:
                (attached if state == 1 else left).append(read)
        if self.version == 5:
            plain = self.words("<8I", 56)
            attached += [read for read in plain if read != V5_VACANT]
            left.append(self.words("<I", 36)[0])
        return min(attached) if attached else max(left, default=0)

    def check_mirrors(self) -> None:
        """Compare the v5 words with the counters they mirror."""
        write, commit, heap_write, heap_commit = self.words("<4Q", 3136)
        if self.version == 6:
            assert self.words("<7I", 28) == (0,) * 7
            return
        low = 0x7FFFFFFF
        assert self.words("<2I", 28) == (write & low, commit & low)
        assert self.words("<2I", 44) == (heap_write & 0xFFFFFFFF, heap_commit & 0xFFFFFFFF)
        assert self.words("<I", 40) == self.words("<I", 3208)

    def payload(self, slot: int, field: Field) -> bytes:
        form = "<IH" if self.version == 5 else "<QI"
        start, size = self.words(form, slot + field.offset)
        physical = start % self.heap
        assert physical + size <= self.heap, "a payload across the heap's end"
        assert field.tag not in ELEMENTS or start % 4 == 0 or size == 0, (
            "an array off its alignment"
        )
        heap_commit = self.words("<Q", 3160)[0]
        behind = (heap_commit - start) % (1 << 32 if self.version == 5 else 1 << 64)
        assert size <= behind <= self.heap, "a payload outside what the heap holds"
        return self.bytes[self.heap_start + physical : self.heap_start + physical + size]

    def value(self, slot: int, field: Field) -> Any:
        if field.tag in NUMBERS:
            return self.words(NUMBERS[field.tag], slot + field.offset)[0]
        data = self.payload(slot, field)
        if field.tag == 8:
            return data.decode()
        if field.tag == 10:
            return json.loads(data)
        if field.tag in ELEMENTS:
            return list(struct.unpack(f"<{len(data) // 4}{ELEMENTS[field.tag]}", data))
        return data

    def record(self, seq: int) -> tuple[Any, ...]:
        """Decode the record `seq`."""
        slot = 4096 + seq % self.capacity * self.stride
        bit, values = 0, []
        for field in self.fields:
            present = True
            if field.nullable:
                present = bool(self.bytes[slot + bit // 8] >> bit % 8 & 1)
                bit += 1
            values.append(self.value(slot, field) if present else None)
        return tuple(values)

    def unread(self) -> list[tuple[Any, ...]]:
        """Decode every record that the producer may not overwrite yet."""
        return [
            self.record(seq) for seq in range(max(self.low_water, self.join_position), self.commit)
        ]
