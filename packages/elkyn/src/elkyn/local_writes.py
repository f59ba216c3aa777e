"""The writes of a store that leads: its own writer commits them, if its rules authorize them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from elkyn.auth.store_auth import StoreAuth
from elkyn.storage.transactions import ReadTransaction
from elkyn.storage.writer import Write, Writer, patch_write, put_write
from elkyn.tree.paths import parse_path
from elkyn.tree.values import present

__all__ = ["LocalWrites"]


class LocalWrites:
    """Commits the writes of `ElkynStore` in this process; `LeaderWrites` does so for a replica."""

    # `put` and `patch` repeat two lines: every write would pay for a call that they share.

    def __init__(self, writer: Writer, auth: StoreAuth) -> None:
        self._writer = writer
        self._auth = auth

    def put(self, path: str, value: Any, token: str | None, *, ephemeral: bool) -> Any:
        """Replace the value at `path`; see `ElkynStore.set`."""
        write = put_write(parse_path(path), value, ephemeral=ephemeral)
        write.authorize = self._auth.authorizer_for_token(token).write_check()
        return self._writer.submit(write).result()

    def patch(
        self, path: str, values: Mapping[str, Any], token: str | None, *, ephemeral: bool
    ) -> dict[str, Any]:
        """Replace several children of `path`; see `ElkynStore.update`."""
        write = patch_write(parse_path(path), values, ephemeral=ephemeral)
        write.authorize = self._auth.authorizer_for_token(token).write_check()
        shown: dict[str, Any] = self._writer.submit(write).result()
        return shown

    def transaction(self, path: str, function: Callable[[Any], Any], token: str | None) -> Any:
        """Replace the value at `path` by `function(value)`; see `ElkynStore.transaction`."""
        keys = parse_path(path)
        authorizer = self._auth.authorizer_for_token(token)

        def make(view: ReadTransaction) -> Write:
            # The function sees the value, so its caller must be allowed to read it.
            authorizer.check_read(view, keys)
            write = put_write(keys, function(present(view.get(keys))))
            write.authorize = authorizer.write_check()
            return write

        return self._writer.run(make).result()

    def set_rules(self, source: str | bytes | Mapping[str, Any]) -> None:
        """Replace the rules; see `ElkynStore.set_rules`."""
        self._auth.set_rules(source)
