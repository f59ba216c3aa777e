"""The network page: founding a network with an invite, accepting a node, and seeing one that ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.browser_site import Site, platform, violations
from e2e.test_playground_widths import overflow
from playwright.sync_api import Page, expect

import sennit
from nodes import RunningNode, running_node
from sennit_core.errors import WaitingToJoin

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def rome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node that wants to join the site's network."""
    folder = tmp_path_factory.mktemp("rome")
    options = ("--api-only", "--memory", "512MiB", "--name", "rome", "--no-flight")
    with running_node(folder, *options) as node:
        yield node


def ask_to_join(site: Site, node: RunningNode) -> None:
    with sennit.connect(site.url, token=site.token) as session:
        found = session.network.show()["node"]
    with node.session() as session:
        try:
            session.network.ask_to_join(f"127.0.0.1:{found['port']}", found["id"])
        except WaitingToJoin:
            return


def test_a_network_is_founded_and_a_node_accepted(
    page: Page, site: Site, rome: RunningNode
) -> None:
    page.goto(f"{site.url}/network/")
    expect(page.get_by_text("This node is in no network")).to_be_visible()
    assert violations(page) == []
    page.get_by_role("button", name="Invite").click()
    dialog = page.get_by_role("dialog", name="Invite a node")
    text = re.compile(r"^sennit-invite:[\w-]{100,}$")
    expect(dialog.get_by_role("textbox", name="Invite")).to_have_value(text)
    expect(dialog).to_contain_text("network.peer_host")
    assert violations(page) == []
    dialog.get_by_role("button", name="Close").click()
    nodes = page.get_by_role("group", name="Nodes")
    expect(nodes.get_by_role("row").nth(1)).to_contain_text("this node, admin")

    ask_to_join(site, rome)
    fingerprint = json.loads(platform("net", "nodes", data=rome.data))["node"]["fingerprint"]
    expect(page.get_by_text(fingerprint)).to_be_visible()
    page.get_by_role("button", name="Accept rome").click()
    expect(page.get_by_text(fingerprint)).to_be_hidden()
    ask_to_join(site, rome)
    row = nodes.get_by_role("row").filter(has_text="rome")
    expect(row).to_contain_text("alive")
    expect(row).to_contain_text("ms")
    expect(page.get_by_role("img", name="All 2 nodes answer.")).to_be_visible()
    assert violations(page) == []

    rome.kill()
    (Path(rome.data) / "run.json").unlink()
    expect(row).to_contain_text("dead", timeout=60_000)
    expect(page.get_by_text("1 of 2 nodes answer.").first).to_be_visible()
    for theme in ("light", "dark"):
        page.set_viewport_size({"width": 360, "height": 740})
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        assert overflow(page) == []
        assert violations(page) == []
