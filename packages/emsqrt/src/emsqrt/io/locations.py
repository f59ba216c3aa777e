"""Locations of input and output: local files, object stores, standard input and output.

A path is plain, or a `file://`, `s3://`, `gs://` or `az://` URI, or `-`. Globs (`data/*.csv`, `**`)
and folders are expanded to their files, sorted by path, so that a plan reads them in the same order
everywhere.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from emsqrt.system_errors import translating_os_errors
from sennit_core.errors import NotFound, Unsupported, UsageError

STORE_SCHEMES = ("s3", "gs", "az")
_MAGIC = frozenset("*?[")
_PLAIN = re.compile(r"(?:/(?!\.(?:/|\Z))[^/]+)+")
"""An absolute path that `pathlib` would not change: no part is empty or a dot."""
STANDARD_NAMES = ("-", "/dev/stdin", "/dev/stdout")


@dataclass(frozen=True, slots=True)
class Location:
    """One file, object or stream.

    Args:
        scheme: "file", "s3", "gs", "az" or "-".
        path: the local path, `bucket/key` of a store, or "-".
        base: the fixed part of `path` before a glob or folder was expanded; `key=value` folders are
            only searched below it.
    """

    scheme: str
    path: str
    base: str = ""

    @property
    def is_local(self) -> bool:
        """Whether it is a file on this machine."""
        return self.scheme == "file"

    @property
    def is_standard(self) -> bool:
        """Whether it is standard input or output."""
        return self.scheme == "-"

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders between `base` and the file's own name."""
        if not self.path.startswith(self.base):
            return ()
        return PurePosixPath(self.path[len(self.base) :].lstrip("/")).parts[:-1]

    def __str__(self) -> str:
        return self.path if self.scheme in ("file", "-") else f"{self.scheme}://{self.path}"


def parse_location(text: str, folder: Path | None = None) -> Location:
    """Parse a path or URI; a relative path is below `folder`.

    Raises:
        Unsupported: the scheme cannot be read or written, such as http.
        UsageError: the URI has no bucket, or names another machine.
    """
    if text in STANDARD_NAMES:
        return Location("-", "-")
    scheme, mark, rest = text.partition("://")
    if not mark:
        if _PLAIN.fullmatch(text):
            return Location("file", text)
        return Location("file", str((folder or Path()) / text))
    if scheme == "file":
        from urllib.parse import unquote, urlsplit  # most locations are paths

        split = urlsplit(text)
        if split.netloc not in ("", "localhost"):
            raise UsageError(f"{text!r} names the machine {split.netloc!r}, not this one")
        return Location("file", unquote(split.path))
    if scheme not in STORE_SCHEMES:
        known = ", ".join(f"{name}://" for name in ("file", *STORE_SCHEMES))
        raise Unsupported(
            f"cannot read from or write to {scheme}://; use {known} or a plain path",
            hint="download it first" if scheme in ("http", "https") else None,
        )
    if not rest.partition("/")[0]:
        raise UsageError(f"{text!r} names no bucket", hint=f"such as {scheme}://bucket/key")
    return Location(scheme, rest)


def expand_locations(
    texts: Sequence[str], folder: Path | None = None, suffixes: Sequence[str] = ()
) -> list[Location]:
    """Expand paths, globs and folders to files; those of each glob and folder are sorted.

    Args:
        texts: the paths in a plan.
        folder: the folder of relative paths.
        suffixes: suffixes of files to read in a folder; names that begin with "." or "_" are
            always ignored.

    Raises:
        NotFound: a path does not exist, or a glob or folder has no file.
    """
    places: list[Location] = []
    for text in texts:
        place = parse_location(text, folder)
        if place.is_standard:
            places.append(place)
        elif place.is_local:
            places += _expand_local(place, text, suffixes)
        elif has_magic(place.path) or place.path.endswith("/"):
            places += _expand_store(place, suffixes)
        else:
            places.append(place)
    if sum(place.is_standard for place in places) > 1:
        raise UsageError("standard input can be read only once")
    return places


def folder_of_work(folder: Path | None = None) -> Path:
    """Return the absolute path of a folder; None is this process's working directory.

    Raises:
        NotFound: the working directory was removed.
    """
    try:
        return (folder or Path()).absolute()
    except FileNotFoundError:
        raise NotFound(
            "working directory of this process",
            hint="it was removed; change to an existing folder",
        ) from None


def has_magic(path: str) -> bool:
    """Return whether a path is a glob."""
    return not _MAGIC.isdisjoint(path)


def fixed_part(path: str) -> str:
    """Return the folders before the first wildcard of a glob."""
    parts: list[str] = []
    for part in path.split("/")[:-1]:
        if has_magic(part):
            break
        parts.append(part)
    return "/".join(parts)


def _expand_local(place: Location, text: str, suffixes: Sequence[str]) -> list[Location]:
    with translating_os_errors(place.path, "reading"):
        return _expand_path(place, text, suffixes)


def _expand_path(place: Location, text: str, suffixes: Sequence[str]) -> list[Location]:
    # Most are, and a short run of many files is mostly the handling of their paths.
    if os.path.isfile(place.path):  # noqa: PTH113 - a third of the time of `Path.is_file`
        return [place]
    path = Path(place.path)
    if path.is_dir():
        return _named(place.path, _files_below(path, suffixes), f"{text}/**")
    if path.exists() or not has_magic(place.path):
        if not path.exists():
            raise NotFound("file", place.path)
        return [place]
    found = (name for name in glob.iglob(place.path, recursive=True) if Path(name).is_file())  # noqa: PTH207 - the pattern is a whole path
    return _named(fixed_part(place.path), found, text)


def _files_below(folder: Path, suffixes: Sequence[str]) -> Iterable[str]:
    for path in folder.rglob("*"):
        inner = path.relative_to(folder).parts
        hidden = any(part[0] in "._" for part in inner)
        wanted = not suffixes or path.name.lower().endswith(tuple(suffixes))
        if wanted and not hidden and path.is_file():
            yield str(path)


def _named(base: str, names: Iterable[str], text: str, scheme: str = "file") -> list[Location]:
    places = [Location(scheme, name, base) for name in sorted(names)]
    if not places:
        raise NotFound("file", text, hint="no file matches; an empty source needs no path at all")
    return places


def _expand_store(place: Location, suffixes: Sequence[str]) -> list[Location]:
    from emsqrt.io.objects import list_objects

    pattern = place.path
    base = fixed_part(pattern)
    names = list_objects(place.scheme, base)
    if pattern.endswith("/"):
        ends = tuple(suffixes) or ("",)
        kept = [name for name in names if name.lower().endswith(ends)]
    else:
        kept = [name for name in names if glob_matches(name, pattern)]
    return _named(base, kept, str(place), place.scheme)


def glob_matches(path: str, pattern: str) -> bool:
    """Return whether a path matches a glob, in which only `**` matches a slash."""
    return _parts_match(path.split("/"), pattern.split("/"))


def _parts_match(parts: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_parts_match(parts[skip:], patterns[1:]) for skip in range(len(parts) + 1))
    return (
        bool(parts) and fnmatchcase(parts[0], patterns[0]) and _parts_match(parts[1:], patterns[1:])
    )
