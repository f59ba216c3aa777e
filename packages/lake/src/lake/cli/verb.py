"""Declares verbs: a function of the parsed options, and its arguments beside it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from sennit_core.errors import NotFound
from sennit_core.units import parse_bytes

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["Argument", "Verb", "argument", "one_of", "open_lake", "verb"]

_Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name
_Container: TypeAlias = "argparse._ActionsContainer"  # noqa: SLF001 - the same
Argument: TypeAlias = Callable[[_Container], object]


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb of the command.

    Args:
        name: As it is typed.
        help: One line.
        arguments: Add its arguments to a parser.
        run: Runs it with the parsed options; returns the exit status, None for 0.
    """

    name: str
    help: str
    arguments: tuple[Argument, ...]
    run: Callable[[argparse.Namespace], int | None]

    def register(self, subparsers: _Subparsers, common: argparse.ArgumentParser) -> None:
        """Add the verb to the program's parser.

        Args:
            subparsers: Where verbs are added.
            common: The options of every verb.
        """
        parser = subparsers.add_parser(
            self.name, parents=[common], help=self.help, description=f"{self.help}."
        )
        for add in self.arguments:
            add(parser)
        parser.set_defaults(run=self.run)


def verb(
    name: str, help_line: str, *arguments: Argument
) -> Callable[[Callable[[argparse.Namespace], int | None]], Verb]:
    """Make the function below a verb."""
    return lambda run: Verb(name, help_line, arguments, run)


def argument(*names: str, **settings: Any) -> Argument:
    """Declare an argument, as `ArgumentParser.add_argument` does."""
    return lambda parser: parser.add_argument(*names, **settings)


def one_of(*arguments: Argument) -> Argument:
    """Declare options of which exactly one is given."""

    def add(parser: _Container) -> None:
        group = parser.add_mutually_exclusive_group(required=True)
        for each in arguments:
            each(group)

    return add


def open_lake(options: argparse.Namespace, *, create: bool = False) -> Lake:
    """Open the lake of `--data`.

    Args:
        options: The parsed options.
        create: Whether to create a lake if there is none.

    Raises:
        NotFound: There is none.
    """
    from lake.lake import Lake

    if not create and not (options.data / "lake").is_dir():
        raise NotFound(
            "lake in",
            str(options.data),
            hint="`lake put FILE --data DIR` or `lake init --data DIR` creates one",
        )
    return Lake(
        options.data,
        memory_bytes=parse_bytes(getattr(options, "memory", "1GiB")),
        key_file=options.key_file,
        passphrase_file=options.passphrase_file,
    )
