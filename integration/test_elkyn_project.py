"""The unmodified `firebase` SDK with a real project's configuration, against a server with rules."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from elkyn_sdks import install_sdks, run_script
from elkyn_server import Served, running, running_emulator

README = Path(__file__).parents[1] / "packages/elkyn/README.md"
NAME = "my-app-default-rtdb"
MISSING = 'there is no namespace "none"; create it with: elkyn namespace add none'


@pytest.fixture(scope="module", autouse=True)
def sdks() -> None:
    if shutil.which("node") is None:
        pytest.skip("no Node.js")
    install_sdks()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    options = ("--namespace", NAME, "--project", "my-app")
    with running(tmp_path_factory.mktemp("project") / "data", *options) as started:
        own = {".read": "auth.uid === $uid", ".write": "auth.uid === $uid"}
        started.rules(NAME, {"users": {"$uid": own}})
        yield started


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "database_url",
    [
        "",  # the SDK makes it of the project's id
        f"https://{NAME}.firebaseio.com",
        f"https://{NAME}.europe-west1.firebasedatabase.app",
    ],
)
def test_the_two_lines_of_the_readme_connect_a_project(served: Served, database_url: str) -> None:
    seen = run_script("project.mjs", str(README), served.port, database_url)
    assert seen == {
        "lines": 2,
        "before": "Permission denied",
        "committed": 5,
        "last": [["09", 14], ["10", 10], ["12", 12]],
    }


def test_every_operation_in_a_missing_namespace_fails_with_the_reason(served: Served) -> None:
    seen = run_script("refused.mjs", served.url, "none")
    for name in ("set", "update", "onDisconnect"):
        assert seen[name] == f"UNKNOWN_NAMESPACE: {MISSING}", name
    assert seen["get"] == MISSING
    for name in ("listen", "query"):
        assert seen[name].startswith("unknown_namespace at /months"), name
    assert seen["transaction"] == "unknown_namespace"
    assert seen["logged"][0] == f"FIREBASE: {MISSING}"


def test_a_namespace_is_created_by_the_url_of_the_readme(served: Served) -> None:
    created = served.client.post("/.settings/namespaces.json", json={"name": "months"})
    assert created.status_code == 201
    served.rules("months", {".read": True, ".write": True})
    seen = run_script("months.mjs", served.url, "months")
    assert (seen["last"], seen["range"]) == (["12"], ["08", "09", "10", "11"])
    assert (seen["committed"], seen["after"]["07"]) == (True, 107)


@pytest.mark.nightly
def test_an_emulator_names_the_option_that_allows_a_refused_host(tmp_path: Path) -> None:
    with running_emulator(tmp_path / "refusing") as url:
        seen = run_script("refused.mjs", url.replace("127.0.0.1", "phone.test"), "any")
    assert "--allow-host phone.test" in seen["set"]
    assert "--allow-host phone.test" in seen["logged"][0]
    with running_emulator(tmp_path / "serving", "--allow-host", "phone.test") as url:
        seen = run_script("refused.mjs", url.replace("127.0.0.1", "phone.test"), "any")
    assert (seen["set"], seen["logged"]) == ("undefined", [])
