from collections.abc import Sequence

from typing_extensions import Buffer

class Columns:
    def __new__(
        cls,
        row_count: int,
        columns: Sequence[tuple[int, int, Buffer | None, Buffer | None, Buffer | None]],
        /,
    ) -> Columns: ...
    def __len__(self) -> int: ...
