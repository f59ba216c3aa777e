"""Random expressions in the generated code of `@sennit/elytra`, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kernel_cases import PROGRAM, check_cases, random_cases
from npm_packages import bundle, install, pack
from playwright.sync_api import Browser

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(300)]
_ENTRY = """
import { computeCases } from './cases.js'

window.compute = (cases) => computeCases(JSON.parse(cases))
"""


def test_generated_code_computes_the_same_in_a_browser(chromium: Browser, tmp_path: Path) -> None:
    install([pack("elytra", tmp_path)], tmp_path)
    (tmp_path / "cases.js").write_text(PROGRAM, encoding="utf-8")
    bundled = bundle(tmp_path, _ENTRY)
    page = chromium.new_page()
    page.add_script_tag(path=bundled / "main.js")

    def compute(cases: str) -> Any:
        return page.evaluate("(cases) => window.compute(cases)", cases)

    assert check_cases(random_cases(150, 3), compute) >= 500
    page.close()
