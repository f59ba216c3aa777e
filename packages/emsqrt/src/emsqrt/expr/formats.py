"""Date formats: the locale-independent directives of C's strftime."""

from __future__ import annotations

import re

from emsqrt.expr.nodes import Expr
from sennit_core.errors import UsageError

DIRECTIVES = {
    "%Y": "[0-9]{4}",
    "%m": "[0-9]{2}",
    "%d": "[0-9]{2}",
    "%H": "[0-9]{2}",
    "%M": "[0-9]{2}",
    "%S": "[0-9]{2}",
    "%f": "[0-9]{1,6}",
    "%j": "[0-9]{3}",
    "%y": "[0-9]{2}",
}
"""Each directive with the regular expression that parses it; `%%` is a percent sign."""


def split_format(pattern: str) -> list[str]:
    """Return the directives and the texts between them, in order; `%F` and `%T` are expanded."""
    long = pattern.replace("%F", "%Y-%m-%d").replace("%T", "%H:%M:%S")
    return [part for part in re.split(r"(%.?)", long, flags=re.DOTALL) if part]


def check_format(expr: Expr, pattern: str) -> None:
    """Refuse a format with a directive that is not among `DIRECTIVES`."""
    for part in split_format(pattern):
        if part.startswith("%") and part not in DIRECTIVES and part != "%%":
            raise UsageError(
                f"no directive {part} in `{expr!s}`",
                hint=f"there are {' '.join(DIRECTIVES)} %F %T %%",
            )
