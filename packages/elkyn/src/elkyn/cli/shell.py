"""`elkyn shell`: browse a tree like a file system."""

from __future__ import annotations

import argparse
import cmd
import json
import shlex
import sys
from typing import Any

from elkyn.cli.command import Subparsers, add_command, read_json
from elkyn.cli.target import Target, add_target, open_target
from elkyn.tree.paths import format_path
from sennit_core.errors import SennitError, UsageError

__all__ = ["register"]

_SHOWN_KEYS = 200


def register(subparsers: Subparsers) -> None:
    """Add the command `shell`."""
    command = add_command(
        subparsers, "shell", _shell, "browse a tree like a file system", data=False
    )
    add_target(command)


def _shell(options: argparse.Namespace) -> int:
    with open_target(options) as tree:
        try:
            Shell(tree).cmdloop()
        except KeyboardInterrupt:
            print()
    return 0


class Shell(cmd.Cmd):
    """Reads commands from standard input; prints errors and continues."""

    intro = "help lists the commands, exit leaves."

    def __init__(self, tree: Target) -> None:
        super().__init__()
        self._tree = tree
        self._keys: tuple[str, ...] = ()
        self.use_rawinput = sys.stdin.isatty()
        self._show_prompt()

    def _show_prompt(self) -> None:
        self.prompt = f"{format_path(self._keys)}> " if sys.stdin.isatty() else ""

    def onecmd(self, line: str) -> bool:
        """Run one command."""
        try:
            return bool(super().onecmd(line))
        except SennitError as error:
            print(f"{error}{f' ({error.hint})' if error.hint else ''}")
            return False

    def emptyline(self) -> bool:
        """Ignore an empty line."""
        return False

    def default(self, line: str) -> None:
        """Refuse an unknown command."""
        raise UsageError(f"unknown command {line.split()[0]!r}", hint="help lists the commands")

    def _at(self, argument: str) -> str:
        keys = [] if argument.startswith("/") else list(self._keys)
        for key in filter(None, argument.split("/")):
            if key == "..":
                del keys[-1:]
            elif key != ".":
                keys.append(key)
        return format_path(keys)

    def _split(self, line: str, count: int) -> list[str]:
        try:
            words = shlex.split(line, posix=False)
        except ValueError as error:
            raise UsageError(f"quotes do not match: {error}") from None
        if len(words) < count:
            raise UsageError(f"this command needs {count} arguments")
        return [*words[: count - 1], " ".join(words[count - 1 :])]

    def do_ls(self, line: str) -> None:
        """Ls [PATH]: the keys of the children."""
        keys = self._tree.keys(self._at(line.strip()))
        print("\n".join(keys[:_SHOWN_KEYS]) or "(no children)")
        if len(keys) > _SHOWN_KEYS:
            print(f"… and {len(keys) - _SHOWN_KEYS} more")

    def do_cd(self, line: str) -> None:
        """Cd [PATH]: change the current path; .. is the parent."""
        self._keys = tuple(filter(None, self._at(line.strip() or "/").split("/")))
        self._show_prompt()

    def do_pwd(self, _line: str) -> None:
        """pwd: print the current path."""
        print(format_path(self._keys))

    def do_get(self, line: str) -> None:
        """Get [PATH]: the value as JSON."""
        self._print(self._tree.get(self._at(line.strip())))

    def do_set(self, line: str) -> None:
        """Set PATH JSON: replace the value."""
        path, text = self._split(line, 2)
        self._tree.set(self._at(path), read_json(text, None))

    def do_push(self, line: str) -> None:
        """Push PATH JSON: add a value under a new key."""
        path, text = self._split(line, 2)
        print(self._tree.push(self._at(path), read_json(text, None)))

    def do_rm(self, line: str) -> None:
        """Rm PATH: delete the value and its children."""
        (path,) = self._split(line, 1)
        self._tree.delete(self._at(path))

    def do_exit(self, _line: str) -> bool:
        """exit: leave the shell."""
        return True

    do_EOF = do_exit  # noqa: N815 - cmd asks for this name at the end of input

    def _print(self, value: Any) -> None:
        print(json.dumps(value, ensure_ascii=False, indent=2))
