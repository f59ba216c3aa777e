"""The network page: real nodes join, share, copy, repair, and are revoked, all of it in the page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
from e2e.browser_site import Watched, platform, violations
from e2e.test_playground_widths import overflow
from playwright.sync_api import Browser, Locator, Page, Route, ViewportSize, expect

from nodes import RunningNode, running_node

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
COPIED_MS = 60_000  # copies are made within about a quarter of a minute
SIZE: ViewportSize = {"width": 1360, "height": 860}


@contextmanager
def office(folder: Path, name: str, zone: str) -> Iterator[RunningNode]:
    """A node in no network, with its playground."""
    data = folder / name
    data.mkdir(mode=0o700)
    (data / "config.toml").write_text(f'[emsqrt]\nexecutors = 1\n[network]\nzone = "{zone}"\n')
    (data / "config.toml").chmod(0o600)
    with running_node(data, "--memory", "512MiB", "--name", name, "--no-flight") as node:
        yield node


@contextmanager
def network_page(browser: Browser, node: RunningNode) -> Iterator[Page]:
    """The network page of a node, signed in, in a context of its own."""
    watched = Watched()
    with browser.new_context(viewport=SIZE) as context:
        page = context.new_page()
        page.on("console", watched.record)
        page.on("pageerror", lambda error: watched.complaints.append(f"uncaught: {error}"))
        page.goto(f"{node.url}/?token={node.token}")
        page.goto(f"{node.url}/network/")
        yield page
        page.goto("about:blank")
    # The browser writes each refusal there, such as that of a node that waits to be accepted.
    assert [each for each in watched.complaints if "status of 40" not in each] == []


@dataclass
class Office:
    """A node and its network page."""

    node: RunningNode
    page: Page


@pytest.fixture(scope="module")
def oslo(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """The founder, once Rome has joined."""
    with (
        office(tmp_path_factory.mktemp("oslo"), "oslo", "north") as node,
        network_page(browser, node) as page,
    ):
        yield Office(node, page)


@pytest.fixture(scope="module")
def rome(
    browser: Browser, oslo: Office, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Office]:
    """A node that has joined with an invite, made and used in the pages."""
    with (
        office(tmp_path_factory.mktemp("rome"), "rome", "south") as node,
        network_page(browser, node) as page,
    ):
        found_and_join(oslo.page, page)
        yield Office(node, page)


def found_and_join(oslo: Page, rome: Page) -> None:
    expect(oslo.get_by_text("This node is in no network")).to_be_visible()
    assert violations(oslo) == []
    oslo.get_by_role("button", name="Invite").click()
    dialog = oslo.get_by_role("dialog", name="Invite a node")
    expect(dialog).to_contain_text("founds a network")
    dialog.get_by_label("It can be used for").select_option("1 hour")
    dialog.get_by_role("button", name="Make an invite").click()
    text = dialog.get_by_role("textbox", name="Invite")
    expect(text).to_have_value(re.compile(r"^sennit-invite:[\w-]{100,}$"))
    expect(dialog).to_contain_text("within 1 hour")
    expect(dialog).to_contain_text("network.peer_host")
    assert violations(oslo) == []
    invite = text.input_value()
    dialog.get_by_role("button", name="Close").click()
    join(rome, "sennit-invite:no")
    expect(rome.get_by_text("This node did not join")).to_be_visible()
    join(rome, invite)


def join(page: Page, invite: str) -> None:
    page.get_by_label("Invite, which an admin").fill(invite)
    page.get_by_role("button", name="Join", exact=True).click()


def joined(oslo: Office, node: RunningNode) -> None:
    """Let a node join by the command line."""
    invite = json.loads(platform("net", "invite", data=oslo.node.data))["invite"]
    platform("net", "join", invite, data=node.data)
    name = json.loads(platform("net", "nodes", data=node.data))["node"]["name"]
    expect(row(oslo.page, "Nodes", name)).to_contain_text("alive")


def table(node: RunningNode, folder: Path, name: str) -> None:
    file = folder / f"{name}.csv"
    file.write_text("city,km\nOslo,1\nRome,2\n")
    platform("put", str(file), data=node.data)


def row(page: Page, table: str, name: str) -> Locator:
    group = page.get_by_role("group", name=table)
    return group.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name)).first


def test_nodes_are_shown_with_their_connections(oslo: Office, rome: Office) -> None:
    for page in (oslo.page, rome.page):
        expect(row(page, "Nodes", "rome")).to_contain_text("alive")
        expect(row(page, "Nodes", "oslo")).to_contain_text("alive")
    expect(row(oslo.page, "Nodes", "oslo")).to_contain_text("this node, admin")
    expect(row(oslo.page, "Nodes", "rome")).to_contain_text(re.compile(r"direct.*ms"))
    expect(row(oslo.page, "Nodes", "rome")).to_contain_text(
        re.compile(r"just now.*south.*free of.*B/s")
    )
    connections = oslo.page.get_by_role("group", name="Connections")
    expect(connections).to_contain_text(re.compile(r"oslo . rome|rome . oslo"))
    # Only admins of the network invite.
    expect(rome.page.get_by_role("button", name="Invite")).to_have_count(0)
    expect(rome.page.get_by_text("revoked at oslo")).to_be_visible()


def test_a_node_that_asks_is_accepted_by_its_fingerprint_and_leaves(
    browser: Browser, oslo: Office, rome: Office, tmp_path: Path
) -> None:
    with office(tmp_path, "bern", "south") as node, network_page(browser, node) as bern:
        with oslo.node.session() as session:
            found = session.network.show()["node"]
        bern.get_by_label("Address of a node").fill(f"127.0.0.1:{found['port']}")
        bern.get_by_label("Its id").fill(found["id"])
        bern.get_by_role("button", name="Ask to join").click()
        expect(bern.get_by_role("status").filter(has_text="Waiting until")).to_be_visible()
        fingerprint = json.loads(platform("net", "nodes", data=node.data))["node"]["fingerprint"]
        expect(bern.get_by_text(fingerprint)).to_be_visible()
        oslo.page.get_by_role("button", name="Accept bern").click()
        dialog = oslo.page.get_by_role("dialog", name="Accept bern?")
        expect(dialog).to_contain_text(fingerprint)
        assert violations(oslo.page) == []
        dialog.get_by_role("button", name="It is the same: accept").click()
        for page in (oslo.page, bern):
            expect(row(page, "Nodes", "bern")).to_contain_text("alive")

        bern.get_by_role("button", name="Leave the network").click()
        dialog = bern.get_by_role("dialog", name="Leave the network?")
        expect(dialog).to_contain_text("Its own tables stay")
        dialog.get_by_role("button", name="Hand over and leave").click()
        expect(bern.get_by_text("This node is in no network")).to_be_visible(timeout=COPIED_MS)
        expect(row(oslo.page, "Nodes", "bern")).to_contain_text("left")


@pytest.mark.nightly  # copies begin when nodes are settled, and are confirmed after that: 36 s
def test_a_table_is_shared_and_its_copy_is_seen_to_arrive(
    oslo: Office, rome: Office, tmp_path: Path
) -> None:
    table(oslo.node, tmp_path, "trips")
    oslo.page.get_by_role("button", name="Share a table").click()
    dialog = oslo.page.get_by_role("dialog", name="Share a table")
    dialog.get_by_label("Table").select_option("trips")
    expect(dialog.get_by_role("button", name="Share", exact=True)).to_be_disabled()
    dialog.get_by_label("rome").first.check()
    assert violations(oslo.page) == []
    dialog.get_by_role("button", name="Share", exact=True).click()
    expect(row(oslo.page, "Shared tables", "trips")).to_contain_text("rome")
    theirs = row(rome.page, "Shared tables", "trips")
    expect(theirs).to_contain_text(re.compile("oslo.*this node reads"))
    for page in (oslo.page, rome.page):
        trips = row(page, "Shared tables", "trips")
        expect(trips).to_contain_text("2 copies of 1 shard", timeout=COPIED_MS)
        expect(trips.get_by_role("cell", name="all", exact=True)).to_be_visible()


def test_how_a_table_is_shared_is_changed_and_ended(
    oslo: Office, rome: Office, tmp_path: Path
) -> None:
    table(oslo.node, tmp_path, "ports")
    platform("share", "ports", "--with", "rome", "--read-only", data=oslo.node.data)
    oslo.page.get_by_role("button", name="Change… how ports is shared").click()
    dialog = oslo.page.get_by_role("dialog", name="How ports is shared")
    expect(dialog.get_by_label("rome").first).to_be_checked()
    dialog.get_by_label("Their users may change its rows").check()
    dialog.get_by_label("Nodes that hold each shard").fill("3")
    dialog.get_by_role("button", name="Save").click()
    ports = row(oslo.page, "Shared tables", "ports")
    expect(ports).to_contain_text(re.compile("they may change rows.*too few copies"))
    expect(ports).to_contain_text("2 nodes may hold it and have room; 3 wanted")
    expect(oslo.page.get_by_text("1 with too few copies")).to_be_visible()
    oslo.page.get_by_role("button", name="Make private… ports").click()
    oslo.page.get_by_role("dialog").get_by_role("button", name="Make private").click()
    for page in (oslo.page, rome.page):
        expect(row(page, "Shared tables", "ports")).to_have_count(0)


@pytest.mark.nightly  # a repair goes on until nothing changes any more
def test_a_check_says_what_to_do_and_a_repair_what_is_left(
    oslo: Office, rome: Office, tmp_path: Path
) -> None:
    table(oslo.node, tmp_path, "ferries")
    platform("share", "ferries", "--with", "rome", "--copies", "3", data=oslo.node.data)
    oslo.page.get_by_role("button", name="Check the network").click()
    check = oslo.page.get_by_role("region", name="Check")
    expect(check).to_contain_text("What to do: share it with more nodes", timeout=COPIED_MS)
    check.get_by_role("button", name=re.compile("that passed")).click()
    expect(check).to_contain_text("versions: all nodes can do the same")
    oslo.page.get_by_role("button", name="Repair all copies").click()
    dialog = oslo.page.get_by_role("dialog", name="Repair copies")
    dialog.get_by_role("button", name="Repair now").click()
    again = dialog.get_by_role("button", name="Repair again")
    expect(again).to_be_visible(timeout=2 * COPIED_MS)
    expect(dialog).to_contain_text("dataset ferries")
    assert violations(oslo.page) == []
    dialog.get_by_role("button", name="Close").first.click()
    platform("unshare", "ferries", data=oslo.node.data)


def test_a_table_of_another_node_is_forked(oslo: Office, rome: Office, tmp_path: Path) -> None:
    table(oslo.node, tmp_path, "lines")
    platform("share", "lines", "--with", "all", data=oslo.node.data)
    rome.page.get_by_role("button", name="Fork… lines").click()
    dialog = rome.page.get_by_role("dialog", name="Fork lines")
    dialog.get_by_label("Name of the new table").fill("lines")
    dialog.get_by_role("button", name="Fork").click()
    expect(dialog.get_by_role("alert")).to_contain_text("It was not forked")
    dialog.get_by_label("Name of the new table").fill("my_lines")
    dialog.get_by_role("button", name="Fork").click()
    expect(rome.page.get_by_role("heading", name="my_lines")).to_be_visible()
    rome.page.goto(f"{rome.node.url}/network/")


def test_the_page_works_with_the_keyboard_and_fits_a_phone_in_both_themes(
    oslo: Office, rome: Office
) -> None:
    page = oslo.page
    page.get_by_role("button", name="rome", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Revoke rome")).to_be_visible()
    for theme in ("light", "dark"):
        page.set_viewport_size({"width": 360, "height": 740})
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        assert overflow(page) == []
        assert violations(page) == []
    page.set_viewport_size(SIZE)
    page.get_by_role("button", name="rome", exact=True).press("Enter")
    expect(page.get_by_role("button", name="Revoke rome")).to_be_hidden()


def test_a_revoked_node_is_told_and_forgets_the_network(
    browser: Browser, oslo: Office, rome: Office, tmp_path: Path
) -> None:
    with office(tmp_path, "paris", "west") as node, network_page(browser, node) as paris:
        joined(oslo, node)
        oslo.page.get_by_role("button", name="paris", exact=True).click()
        oslo.page.get_by_role("button", name="Revoke paris").click()
        dialog = oslo.page.get_by_role("dialog", name="Revoke paris?")
        revoke = dialog.get_by_role("button", name="Revoke for ever")
        expect(revoke).to_be_disabled()
        dialog.get_by_label("Type paris to confirm").fill("paris")
        revoke.click()
        expect(row(oslo.page, "Nodes", "paris")).to_have_count(0)
        expect(paris.get_by_text("This node was removed")).to_be_visible(timeout=COPIED_MS)
        paris.get_by_role("button", name="Leave the network").click()
        paris.get_by_role("dialog").get_by_role("button", name="Leave", exact=True).click()
        expect(paris.get_by_text("This node is in no network")).to_be_visible()


@pytest.mark.nightly  # a node is dead after a while only
def test_a_node_that_dies_is_shown_as_dead_with_when_it_was_seen(
    oslo: Office, rome: Office, tmp_path: Path
) -> None:
    with office(tmp_path, "turin", "south") as node:
        joined(oslo, node)
        node.kill()
        (node.data / "run.json").unlink()
        turin = row(oslo.page, "Nodes", "turin")
        expect(turin).to_contain_text("dead", timeout=COPIED_MS)
        expect(turin).to_contain_text(re.compile("not connected.*(just now|min ago)"))
        expect(oslo.page.get_by_text("1 dead")).to_be_visible()
    platform("net", "revoke", "turin", "--yes", data=oslo.node.data)
    expect(turin).to_have_count(0)


def test_a_node_of_a_hundred_is_found_by_a_search(
    browser: Browser, oslo: Office, rome: Office
) -> None:
    def many_nodes(route: Route) -> None:
        answer = route.fetch()
        report = answer.json()
        other = report["nodes"][1]
        names = [f"office-{number:03}" for number in range(100 - len(report["nodes"]))]
        report["nodes"] += [
            other | {"id": name, "name": name, "zone": name[-1], "state": "alive"} for name in names
        ]
        route.fulfill(response=answer, json=report)

    def many_links(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        pairs = combinations([f"office-{number:03}" for number in range(98)], 2)
        found["links"] += [{"nodes": pair, "rttSeconds": 0.01, "relay": None} for pair in pairs]
        route.fulfill(response=answer, json=found)

    with network_page(browser, oslo.node) as page:
        page.route("**/api/network", many_nodes)
        page.route("**/api/network/map", many_links)
        page.reload()
        rows = page.get_by_role("group", name="Nodes").get_by_role("row")
        expect(rows).to_have_count(101)
        page.get_by_role("searchbox", name="Search nodes").fill("office-042 alive")
        expect(rows).to_have_count(2)
        expect(page.get_by_text("1 of 100", exact=True)).to_be_visible()
        links = page.get_by_role("group", name="Connections")
        expect(links).to_contain_text("The 100 slowest are shown")
        page.get_by_role("searchbox", name="Search connections").fill("office-007 office-042")
        expect(links.get_by_role("row")).to_have_count(2)
        assert violations(page) == []
        page.unroute_all(behavior="ignoreErrors")
