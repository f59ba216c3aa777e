"""What `docs/auth.md` shows is run, and so is every `curl` line of the pages about Elkyn."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from elkyn_server import Served

from sennit_core.testing import run_markdown

ROOT = Path(__file__).parents[3]
PAGES = ("docs/auth.md", "packages/elkyn/README.md")
RULES = {"rules": {"users": {".read": True, ".write": True, ".indexOn": "name"}}}


def curl_lines(page: str) -> list[str]:
    return [
        line for line in (ROOT / page).read_text().splitlines() if line.lstrip().startswith("curl ")
    ]


def run_line(line: str, served: Served, folder: Path) -> str:
    """Run a line of a page in a shell, against the server in the place of the one it names."""
    (folder / "rules.json").write_text(json.dumps(RULES))
    words = line.replace("curl ", "curl --fail-with-body --silent --show-error --max-time 30 ", 1)
    words = words.replace("localhost:9000", served.url.removeprefix("http://"))
    environment = {**os.environ, "ADMIN": served.token or "", "TOKEN": served.token or ""}
    done = subprocess.run(
        ["sh", "-c", words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_page_about_auth_runs() -> None:
    names = run_markdown(ROOT / "docs" / "auth.md")
    assert names["ann"].email == "ann@example.com"


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_curl_line_of_a_page_works(
    page: str, start_server: Callable[..., Served], tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    served = start_server()
    served.rules("default", RULES["rules"])
    lines = curl_lines(page)
    assert lines
    for line in lines:
        run_line(line, served, tmp_path)


@pytest.mark.slow
def test_the_token_of_the_page_is_of_the_user_and_the_claims(
    start_server: Callable[..., Served], tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    served = start_server()
    served.rules("default", {"own": {".read": "auth.uid === 'user123' && auth.token.level === 3"}})
    (line,) = curl_lines("docs/auth.md")
    token = json.loads(run_line(line, served, tmp_path))["token"]
    assert served.client.get("/own.json", headers={"Authorization": ""}).status_code == 401
    headers = {"Authorization": f"Bearer {token}"}
    assert served.client.get("/own.json", headers=headers).status_code == 200
