"""Which tokens are not admitted any more, and why: on disk, so that a restart does not admit them again."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lake.objects.durable import write_whole
from sennit_core.errors import Corrupt
from sennit_core.private_files import make_private_folder

__all__ = ["Exclusion", "Exclusions"]

_TOKENS_MAX = 10_000
"""The oldest make room. A user gets no token while one of the user's is excluded, and 32 at most."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Why a token is not admitted.

    Args:
        reason: In one sentence.
        since: Unix time in seconds.
        wrong_rows: Whether its workers returned wrong rows, so that no result of them counts.
    """

    reason: str
    since: float
    wrong_rows: bool = False


class Exclusions:
    """The excluded tokens of a node; each change is durable when it returns.

    Args:
        path: Of the file.

    Raises:
        Corrupt: The file is damaged. To go on without it would admit all of its tokens.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._found: dict[str, Exclusion] = {}
        try:
            content = json.loads(path.read_bytes())
            self._found = {token: Exclusion(**members) for token, members in content.items()}
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, AttributeError) as problem:
            raise Corrupt(
                f"the excluded workers in {path}",
                hint="delete the file to admit all workers again; jobs with wrong rows of these "
                "are then not found",
            ) from problem

    def all(self) -> Mapping[str, Exclusion]:
        """Return the excluded tokens by id, the oldest first."""
        with self._lock:
            return dict(self._found)

    def add(self, token: str, exclusion: Exclusion) -> None:
        """Exclude a token; wrong rows replace another reason, and no reason replaces them."""
        with self._lock:
            known = self._found.get(token)
            if known is not None and (known.wrong_rows or not exclusion.wrong_rows):
                return
            found = {**self._found, token: exclusion}
            while len(found) > _TOKENS_MAX:
                del found[next(iter(found))]
            self._write(found)

    def remove(self, token: str) -> bool:
        """Admit a token again; return whether it was excluded."""
        with self._lock:
            if token not in self._found:
                return False
            self._write({key: each for key, each in self._found.items() if key != token})
            return True

    def _write(self, found: dict[str, Exclusion]) -> None:
        make_private_folder(self._path.parent)
        content = {token: asdict(each) for token, each in found.items()}
        write_whole(self._path, json.dumps(content).encode())
        self._found = found
