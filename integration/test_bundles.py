"""`platform bundle` between real nodes: outside of a network, and within one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from networks import UP, all_become_alive, eventually, invite, start

from nodes import RunningNode, platform, quiet_environment, running_node

pytestmark = pytest.mark.timeout(300)  # of several processes
PAGE = Path(__file__).resolve().parents[1] / "docs" / "bundles.md"
Nodes = dict[str, RunningNode]


@pytest.fixture(scope="module")
def separate_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two nodes that do not know each other, by the names of their folders."""
    folder = tmp_path_factory.mktemp("separate_nodes")
    with ExitStack() as stack:
        found = {}
        for name in ("oslo", "bern"):
            (folder / name).mkdir()
            (folder / name / "config.toml").write_text("[emsqrt]\nexecutors = 1\n")
            found[name] = stack.enter_context(running_node(folder / name, *UP))
        yield found


def shell(text: str, folder: Path) -> str:
    text = text.replace("platform ", f"{sys.executable} -m sennit.cli ")
    done = subprocess.run(
        ["sh", "-ec", text], cwd=folder, env=quiet_environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def blocks() -> list[str]:
    return [part.partition("```")[0] for part in PAGE.read_text(encoding="utf-8").split("```sh\n")]


def test_the_example_of_the_page_brings_a_dataset_to_a_node_without_a_network(
    separate_nodes: Nodes,
) -> None:
    folder = separate_nodes["oslo"].data.parent
    printed = shell(blocks()[1], folder)
    assert "trips: new datasets of this node, from node" in printed
    assert printed.split()[-4:] == ["Oslo", "5", "Rome", "2"]
    assert (folder / "trips.bundle").stat().st_mode & 0o077 == 0

    options = ("--passphrase-file", str(folder / "passphrase"))
    bern = separate_nodes["bern"]
    again = platform("bundle", "import", str(folder / "trips.bundle"), *options,
                     data=bern.data, check=False)  # fmt: skip
    assert again.returncode == 5
    assert "a dataset named 'trips' exists" in again.stderr
    (folder / "other").write_text("another passphrase")
    (folder / "other").chmod(0o600)
    wrong = platform("bundle", "import", str(folder / "trips.bundle"), "--passphrase-file",
                     str(folder / "other"), data=bern.data, check=False)  # fmt: skip
    assert "needs the passphrase" in wrong.stderr
    nothing = platform("bundle", "export", "none", "--to", str(folder / "b"), *options,
                       data=bern.data, check=False)  # fmt: skip
    assert nothing.returncode == 4
    silent = platform("bundle", "import", str(folder / "b"), data=bern.data, check=False)
    assert "--passphrase-file" in silent.stderr


def test_only_the_owner_on_the_machine_names_files(separate_nodes: Nodes, tmp_path: Path) -> None:
    bern = separate_nodes["bern"]
    issued = httpx.post(
        f"{bern.url}/api/tokens", json={"name": "other", "role": "admin"}, headers=bern.headers
    ).json()["token"]
    body: dict[str, Any] = {"datasets": ["t"], "path": str(tmp_path / "b"), "passphrase": "x" * 12}
    url = f"{bern.url}/api/bundles/export"
    for headers in (
        {"authorization": f"Bearer {issued}"},
        bern.headers | {"x-forwarded-for": "10.0.0.1"},
    ):
        assert httpx.post(url, json=body, headers=headers).status_code == 403
    file = tmp_path / "file"
    file.write_text("x")
    seen = {"inode": "1", "size": "1", "mtimeNs": "1"}
    body = {"path": str(file), "file": seen, "passphrase": "x" * 12}
    refused = httpx.post(f"{bern.url}/api/bundles/import", json=body, headers=bern.headers)
    assert "another one for the node" in refused.json()["error"]
    os.mkfifo(tmp_path / "pipe")
    body["path"] = str(tmp_path / "pipe")
    refused = httpx.post(f"{bern.url}/api/bundles/import", json=body, headers=bern.headers)
    assert "not a regular file" in refused.json()["error"]


@pytest.mark.nightly
def test_a_node_that_is_killed_while_it_imports_shows_nothing(tmp_path: Path) -> None:
    csv = tmp_path / "t.csv"
    csv.write_text("a,b\n" + "".join(f"{i},{i * 7919 % 1000003}\n" for i in range(200_000)))
    (tmp_path / "passphrase").write_text("correct horse battery")
    (tmp_path / "passphrase").chmod(0o600)
    options = ("--passphrase-file", str(tmp_path / "passphrase"))
    file = str(tmp_path / "t.bundle")
    with start(tmp_path, "oslo") as oslo:
        platform("put", str(csv), "--wait", data=oslo.data)
        platform("bundle", "export", "t", "--to", file, *options, data=oslo.data)
    with start(tmp_path, "rome") as rome:
        command = [sys.executable, "-m", "sennit.cli", "bundle", "import", file, *options,
                   "--data", str(rome.data)]  # fmt: skip
        importing = subprocess.Popen(
            command, env=quiet_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        incoming = rome.data / "lake" / "objects" / "incoming"
        eventually(lambda: any(incoming.iterdir()) or importing.poll() is not None)
        rome.kill()
        importing.communicate()
    (rome.data / "run.json").unlink(missing_ok=True)
    with start(tmp_path, "rome") as rome:
        found = json.loads(platform("datasets", "--json", data=rome.data).stdout)
        if not found:  # it was killed before it had ended
            platform("bundle", "import", file, *options, data=rome.data)
        assert platform("sql", "SELECT count(*) FROM t", "--csv", data=rome.data).stdout.split()[1:] == ["200000"]  # fmt: skip
        platform("verify", data=rome.data)


@pytest.mark.nightly
def test_a_member_is_seeded_without_a_transfer_of_shards(tmp_path: Path) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse battery")
    passphrase.chmod(0o600)
    (tmp_path / "trips.csv").write_text("city,km\nOslo,5\nRome,2\n")
    closed = 'copy_hours = "03:00-03:01"\n'
    with start(tmp_path, "oslo") as oslo, ExitStack() as stack:
        rome = stack.enter_context(start(tmp_path, "rome", "--join", invite(oslo), config=closed))
        all_become_alive(oslo, rome)
        platform("put", str(tmp_path / "trips.csv"), "--wait", data=oslo.data)
        options = ("--passphrase-file", str(passphrase))
        platform("bundle", "export", "trips", "--to", str(tmp_path / "trips.bundle"), *options,
                 data=oslo.data)  # fmt: skip
        sharing, loading, *_ = blocks()[2].splitlines()
        refused = platform("bundle", "import", str(tmp_path / "trips.bundle"), *options,
                           data=rome.data, check=False)  # fmt: skip
        assert "not shared with this node" in refused.stderr
        shell(sharing, tmp_path)

        def is_shared() -> bool:
            found = json.loads(platform("datasets", "--json", data=rome.data).stdout)
            return [each["name"] for each in found] == ["trips"]

        eventually(is_shared)
        assert "trips: copies of datasets of the network" in shell(loading, tmp_path)
        platform("down", data=oslo.data)
        answer = platform("sql", "SELECT sum(km) FROM trips", "--csv", data=rome.data).stdout
        assert answer.split()[1:] == ["7"]
