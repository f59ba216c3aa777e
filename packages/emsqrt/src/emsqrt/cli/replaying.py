"""`emsqrt replay`: report which outputs were reproduced."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from emsqrt.manifest import Manifest
from emsqrt.replay import Finding, replay
from sennit_core.errors import BadInput

EXIT_DIFFERENT = 8


def print_replay(path: Path, mem_cap: str | None, *, as_json: bool) -> int:
    """Replay a manifest, print the findings and return the exit status.

    Args:
        path: the manifest's file.
        mem_cap: such as "64MiB"; the first run's when None.
        as_json: whether to print one JSON object.
    """
    try:
        manifest = Manifest.from_json(json.loads(path.read_text()))
    # A file of any content may be named: each of these is what reading it as a manifest can raise.
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(str(path), reason=f"this is not a manifest: {error}") from error
    done = replay(manifest, mem_cap=mem_cap)
    if as_json:
        print(
            json.dumps(
                {
                    "same": done.is_same,
                    "inputs": [asdict(each) for each in done.inputs],
                    "outputs": [asdict(each) for each in done.outputs],
                },
                indent=2,
            )
        )
    else:
        for each in done.inputs:
            print(f"input {_line(each)}")
        for each in done.outputs:
            print(f"output {_line(each)}")
        print("the same" if done.is_same else "not the same")
    return 0 if done.is_same else EXIT_DIFFERENT


def _line(finding: Finding) -> str:
    place = "" if finding.offset is None else f" from byte {finding.offset} on"
    return f"{finding.path}: {finding.verdict}{place}"
