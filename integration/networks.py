"""Networks of real nodes for tests: each node is a process, which is killed, stopped and cut off."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from peer_proxy import PeerProxy, free_port, peer_proxy

from elytra.client.transport import wait_for
from nodes import RunningNode, running_node
from sennit_core.errors import DeadlineExceeded

__all__ = [
    "Member",
    "all_become_alive",
    "eventually",
    "invite",
    "members",
    "shown",
    "start",
    "states",
]

UP = ("--api-only", "--memory", "512MiB", "--no-flight")
CONFIG = "[emsqrt]\nexecutors = 1\n[network]\n"


def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; only a broken network needs the whole time."""
    wait_for(lambda: condition() or None, what="the network", seconds=100)


def all_become_alive(*nodes: RunningNode) -> None:
    """Wait until each of the nodes sees each of them alive, and no other."""
    try:
        eventually(lambda: all(list(states(n).values()) == ["alive"] * len(nodes) for n in nodes))
    except DeadlineExceeded:
        raise AssertionError(f"what each sees: {[states(node) for node in nodes]}") from None


def start(
    folder: Path, name: str, *arguments: str, config: str = "", within: Sequence[str] = ()
) -> AbstractContextManager[RunningNode]:
    """Start a node, within a command; `config` begins in the section of the network."""
    data = folder / name
    data.mkdir(exist_ok=True)
    (data / "config.toml").write_text(CONFIG + config)
    return running_node(data, *UP, "--name", name, *arguments, within=within)


def shown(node: RunningNode) -> dict[str, Any]:
    """Return the network as a node sees it."""
    with node.session() as session:
        return session.network.show()


def states(node: RunningNode) -> dict[str, str]:
    """Return the state of each node of the network, as one sees it."""
    return {each["name"]: each["state"] for each in shown(node)["nodes"]}


def invite(node: RunningNode) -> str:
    """Return an invite to the network of a node."""
    with node.session() as session:
        return session.network.invite()


class Member:
    """A node of a network that other nodes reach through a proxy.

    Args:
        folder: The parent of its folder.
        name: Its name.
        config: More of its section of the network, and further sections.
    """

    def __init__(self, folder: Path, name: str, config: str) -> None:
        self.name, self._folder = name, folder
        self._port = free_port()
        self._stack, self._life = ExitStack(), ExitStack()
        self.proxy: PeerProxy = self._stack.enter_context(peer_proxy(self._port))
        addresses = f'peer_addresses = ["127.0.0.1:{self.proxy.port}"]\n'
        self._config = f"peer_port = {self._port}\n{addresses}{config}"
        self.node: RunningNode

    @property
    def pid(self) -> int:
        """Its process."""
        return self.node.process.pid

    def up(self, *arguments: str, within: Sequence[str] = ()) -> None:
        """Start it, within a command."""
        self.node = self._life.enter_context(
            start(self._folder, self.name, *arguments, config=self._config, within=within)
        )

    def kill(self) -> None:
        """End it as a power cut would."""
        self.node.kill()
        (self.node.data / "run.json").unlink(missing_ok=True)
        self._life.close()

    def stop(self) -> None:
        """Stop the process; it answers nothing until it goes on."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it, and its proxy."""
        self._life.close()
        self._stack.close()


@contextmanager
def members(
    folder: Path,
    *names: str,
    config: str = "",
    within: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Iterator[dict[str, Member]]:
    """A network of nodes that reach each other through proxies; the first one has founded it.

    Args:
        folder: Has their folders.
        names: Of the nodes.
        config: As of `Member`.
        within: Commands that nodes are started within.
    """
    with ExitStack() as stack:
        found = {}
        for name in names:
            found[name] = Member(folder, name, config)
            stack.callback(found[name].close)
        first, *others = found.values()
        first.up()
        for each in others:
            each.up("--join", invite(first.node), within=within.get(each.name, ()))
        all_become_alive(*(each.node for each in found.values()))
        yield found
