"""The network page: queued appends, hand-overs, forks, removed writers and nodes nearby, with real nodes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.browser_site import platform, violations
from e2e.test_playground_network import (
    COPIED_MS,
    Office,
    join,
    joined,
    network_page,
    office,
    row,
    table,
)
from e2e.test_playground_widths import overflow
from playwright.sync_api import Browser, Page, expect

from nodes import RunningNode, running_node

# Nodes of their own, one of which goes away and comes back.
pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def oslo(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with (
        office(tmp_path_factory.mktemp("oslo"), "oslo", "north") as node,
        network_page(browser, node) as page,
    ):
        yield Office(node, page)


@pytest.fixture(scope="module")
def rome(
    browser: Browser, oslo: Office, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Office]:
    with (
        office(tmp_path_factory.mktemp("rome"), "rome", "south") as node,
        network_page(browser, node) as page,
    ):
        invite = json.loads(platform("net", "invite", data=oslo.node.data))["invite"]
        join(page, invite)
        expect(row(page, "Nodes", "oslo")).to_contain_text("alive")
        yield Office(node, page)


def shoot(page: Page, name: str) -> None:
    """Save the page in both themes, if a folder is given: `SCREENSHOTS=folder`."""
    folder = os.environ.get("SCREENSHOTS")
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        assert violations(page) == []
        if folder:
            page.screenshot(path=Path(folder) / f"{name}-{theme}.png", full_page=True)


def test_a_table_is_handed_over_and_refused(oslo: Office, rome: Office, tmp_path: Path) -> None:
    table(oslo.node, tmp_path, "trips")
    platform("share", "trips", "--with", "rome", data=oslo.node.data)
    expect(row(rome.page, "Shared tables", "trips")).to_contain_text("oslo")
    # What was not offered is not accepted.
    rome.page.get_by_role("button", name="Write here… trips").click()
    dialog = rome.page.get_by_role("dialog", name="Write trips at this node?")
    dialog.get_by_role("button", name="Accept it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("offered to this node")
    dialog.get_by_role("button", name="Not now").click()

    def offer() -> None:
        oslo.page.get_by_role("button", name="Hand over… trips").click()
        dialog = oslo.page.get_by_role("dialog", name="Hand trips over")
        expect(dialog.get_by_role("button", name="Offer it")).to_be_disabled()
        dialog.get_by_label("Node that is to write it").select_option("rome")
        assert violations(oslo.page) == []
        dialog.get_by_role("button", name="Offer it").click()
        expect(row(oslo.page, "Shared tables", "trips")).to_contain_text("Offered to rome")

    offer()
    oslo.page.get_by_role("button", name="End hand-over… of trips").click()
    oslo.page.get_by_role("dialog").get_by_role("button", name="End it").click()
    expect(row(oslo.page, "Shared tables", "trips")).not_to_contain_text("Offered to rome")
    offer()
    rome.page.get_by_role("button", name="Write here… trips").click()
    rome.page.get_by_role("dialog").get_by_role("button", name="Accept it").click()
    theirs = row(rome.page, "Shared tables", "trips")
    expect(theirs.get_by_role("cell", name="this node", exact=True)).to_be_visible(
        timeout=COPIED_MS
    )
    expect(row(oslo.page, "Shared tables", "trips")).to_contain_text("rome", timeout=COPIED_MS)


def test_a_fork_says_of_what_it_is_one(oslo: Office, rome: Office, tmp_path: Path) -> None:
    table(oslo.node, tmp_path, "lines")
    platform("share", "lines", "--with", "all", data=oslo.node.data)
    expect(row(rome.page, "Shared tables", "lines")).to_be_visible()
    platform("fork", "lines", "my_lines", data=rome.node.data)
    platform("share", "my_lines", "--with", "all", data=rome.node.data)
    for page in (oslo.page, rome.page):
        expect(row(page, "Shared tables", "my_lines")).to_contain_text("fork of lines, version 1")


def test_a_table_of_a_node_that_was_removed_says_so(
    oslo: Office, rome: Office, tmp_path: Path
) -> None:
    with office(tmp_path, "paris", "west") as paris:
        joined(oslo, paris)
        table(paris, tmp_path, "plans")
        platform("share", "plans", "--with", "all", data=paris.data)
        plans = row(rome.page, "Shared tables", "plans")
        expect(plans).to_contain_text("paris")
        platform("net", "revoke", "paris", "--yes", data=oslo.node.data)
        expect(plans).to_contain_text("removed from the network: no new versions")
        expect(plans.get_by_role("button", name="Write here… plans")).to_have_count(0)
        with rome.node.session() as session:
            found = str(session.network.check())
        assert "its writer paris was removed" in found


def test_queued_appends_are_listed_removed_and_queued_again(
    browser: Browser, rome: Office, oslo: Office, tmp_path: Path
) -> None:
    with office(tmp_path, "bern", "west") as bern:
        joined(oslo, bern)
        table(bern, tmp_path, "stops")
        platform("share", "stops", "--with", "rome", data=bern.data)
        expect(row(rome.page, "Shared tables", "stops")).to_contain_text("may change rows")
        bern.kill()
        (bern.data / "run.json").unlink()
    for values in ("('Bern', 3)", "('Bern', 'far')", "('Bern', 5)"):
        platform("sql", f"INSERT INTO stops VALUES {values}", "--queue", data=rome.node.data)
    queue = rome.page.get_by_role("group", name="Queued appends")
    expect(queue.get_by_role("row")).to_have_count(4)
    expect(queue).to_contain_text(re.compile("stops.*written by bern.*waits for its writer"))
    last = queue.get_by_role("row").filter(has_text="('Bern', 5)")
    last.get_by_role("button", name="Remove… the append to stops").click()
    dialog = rome.page.get_by_role("dialog", name="Remove the append to stops?")
    expect(dialog).to_contain_text("It is not committed")
    dialog.get_by_role("button", name="Remove", exact=True).click()
    expect(queue.get_by_role("row")).to_have_count(3)
    rome.page.reload()
    shoot(rome.page, "network")
    rome.page.set_viewport_size({"width": 360, "height": 740})
    assert overflow(rome.page) == []
    shoot(rome.page, "network-phone")
    rome.page.set_viewport_size({"width": 1360, "height": 860})
    with running_node(bern.data, "--memory", "512MiB", "--name", "bern", "--no-flight"):
        wrong = queue.get_by_role("row").filter(has_text="'far'")
        expect(wrong).to_contain_text("refused", timeout=COPIED_MS)
        expect(queue.get_by_role("row")).to_have_count(2)
        again = wrong.get_by_role("button", name="Queue again the append to stops")
        again.click()
        # It is refused again, as a new append.
        expect(wrong).to_contain_text("refused", timeout=COPIED_MS)
        wrong.get_by_role("button", name="Remove…").click()
        rome.page.get_by_role("dialog").get_by_role("button", name="Remove", exact=True).click()
        expect(queue).to_have_count(0)


def discovering(folder: Path, name: str) -> tuple[Path, list[str]]:
    data = folder / name
    data.mkdir(mode=0o700)
    host = private_address()
    (data / "config.toml").write_text(
        f'[emsqrt]\nexecutors = 1\n[network]\ndiscovery = true\npeer_host = "{host}"\n'
    )
    (data / "config.toml").chmod(0o600)
    return data, ["--memory", "512MiB", "--name", name, "--no-flight"]


def private_address() -> str:
    from lake.peers.members.discovery import private_interfaces

    found = [str(each.ip) for each in private_interfaces() if each.version == 4]
    if not found:
        pytest.skip("no interface of this machine has a private IPv4 address")
    return found[0]


def test_a_node_nearby_is_found_and_asked_to_join(browser: Browser, tmp_path: Path) -> None:
    north, options = discovering(tmp_path, "kiel")
    south, others = discovering(tmp_path, "graz")
    with running_node(north, *options) as kiel, running_node(south, *others) as graz:
        platform("net", "invite", data=kiel.data)
        with network_page(browser, graz) as page, network_page(browser, kiel) as host:
            nearby = page.get_by_role("list", name="Nodes nearby")
            expect(nearby).to_contain_text("kiel", timeout=COPIED_MS)
            expect(nearby).to_contain_text("in another network")
            shoot(page, "nearby")
            page.get_by_role("button", name="Ask kiel to join…").click()
            dialog = page.get_by_role("dialog", name="Ask kiel to join its network")
            found = fingerprint(kiel)
            expect(dialog).to_contain_text(found)
            dialog.get_by_role("button", name="It is the same: ask to join").click()
            expect(dialog.get_by_role("status")).to_contain_text("Waiting until")
            host.get_by_role("button", name="Accept graz").click()
            accept = host.get_by_role("dialog", name="Accept graz?")
            accept.get_by_role("button", name="It is the same: accept").click()
            expect(row(page, "Nodes", "kiel")).to_contain_text("alive")
            expect(page.get_by_role("list", name="Nodes nearby")).to_contain_text(
                "in this network", timeout=COPIED_MS
            )
            expect(page.get_by_role("button", name="Ask kiel to join…")).to_have_count(0)


def fingerprint(node: RunningNode) -> str:
    shown = json.loads(platform("net", "nodes", data=node.data))
    found: str = shown["node"]["fingerprint"]
    return found
