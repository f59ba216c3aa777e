"""Flags of other engines and of earlier versions, and their equivalents here."""

from __future__ import annotations

from collections.abc import Iterable

from sennit_core.text import nearest

_INSTEAD = {
    "--spill-aws-": "credentials come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
    "AWS_SESSION_TOKEN, the region from --spill-aws-region",
    "--spill-gcs-": "credentials come from GOOGLE_APPLICATION_CREDENTIALS",
    "--spill-azure-": "credentials come from AZURE_STORAGE_ACCOUNT_NAME and "
    "AZURE_STORAGE_ACCOUNT_KEY",
    "--spill-retry-": "retries are limited by --spill-retry-max-ms",
    "--block-size": "write it in the document: config: {block_size: 1MiB}",
    "--seed": "write it in the document: config: {seed: 7}",
    "--max-spill-concurrency": "write it in the document: config: {max_spill_concurrency: 4}",
    "--dry-run": "emsqrt validate and emsqrt explain run nothing",
    "--explain": "emsqrt explain shows the plan",
    "--query": 'the statement needs no flag: emsqrt sql "select …"',
    "--memory-limit": "the cap is --mem-cap",
    "--max-memory": "the cap is --mem-cap",
    "--descending": "write name:desc in --by",
    "--desc": "write name:desc in --by",
    "--group-by": "the keys are --by",
}
"""Hints by the beginning of a flag."""


def hint_for(flag: str, known: Iterable[str]) -> str | None:
    """Return what to write instead of an unknown flag, or None.

    Args:
        flag: as it was typed, perhaps with `=value`.
        known: the flags that the verb has.
    """
    # Without the value, which would only make the guess worse.
    name = flag.partition("=")[0]
    for start, hint in _INSTEAD.items():
        if name.startswith(start):
            return hint
    guess = nearest(name, known)
    return f"did you mean {guess}?" if guess else None
