"""The policy that browsers receive."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from sennit.security_headers import content_security_policy, inline_script_hashes


def test_only_scripts_that_the_site_holds_may_run_inline(tmp_path: Path) -> None:
    script = "document.documentElement.dataset.theme = 'dark'"
    (tmp_path / "index.html").write_text(
        f'<html><script>{script}</script><script src="/a.js"></script>'
    )
    expected = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert inline_script_hashes(tmp_path) == {expected}
    policy = content_security_policy([expected])
    assert f"script-src 'self' 'sha256-{expected}'" in policy


def test_the_policy_allows_neither_eval_nor_foreign_sources() -> None:
    policy = content_security_policy([])
    assert "unsafe-eval" not in policy
    assert "http:" not in policy
    assert "script-src 'self';" in policy
