"""Claim: a tab of Chromium uploads at no less than half the rate of the Python client, in flat memory.

One file is sent to one node, in turn by `elytra.client` and by `StreamUploader` of `@sennit/elytra` in a
page: parts of 8 MiB, four at a time, hashed by the sender, durable before they are answered. Measured from
the request that starts the upload to the last part's answer; the upload is then deleted, so that no ingest
takes part. CPU is of the sender: this process, or all processes of the browser. Ratios are of the best
rounds; on a busy machine only they mean anything.

    npm ci && npm run build --workspace @sennit/elytra
    python benchmarks/bench_browser_uploads.py [--megabytes 512] [--rounds 3] [--data DIR]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from bench_elytra_uploads import running_node
from browser_peers.pages import CHROMIUM, opened, site
from playwright.sync_api import Page

from elytra.client.transport import Transport
from elytra.client.upload_sender import SendOptions, send_file
from sennit_core.units import MIB

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "packages/elytra/js/dist"
_SEND = """async ([url, token, workers]) => {
  const { StreamUploader } = await import('/dist/index.js')
  const started = { id: null }
  const uploader = new StreamUploader({
    url, token, workers,
    fetch: async (address, init) => {
      if (String(address).endsWith('/complete')) return new Promise(() => {})  // no ingest
      const response = await fetch(address, init)
      if (String(address).endsWith('/start-upload'))
        started.id = (await response.clone().json()).uploadId
      return response
    },
  })
  const file = document.getElementById('file').files[0]
  const began = performance.now()
  await new Promise((resolve, reject) => {
    const upload = uploader.upload(file, {
      onChange: ({ state, error }) => {
        if (state === 'completing') resolve()
        if (state === 'failed') reject(error)
      },
    })
  })
  const seconds = (performance.now() - began) / 1000
  await uploader.discard(started.id)
  uploader.close()
  return seconds
}"""
_INPUT = "document.body.innerHTML = '<input type=file id=file>'"


@dataclass(frozen=True)
class Figures:
    """What a round measured: seconds, CPU seconds of the sender, and memory in bytes.

    Memory is the growth of that process of the sender that grew most.
    """

    wall: float
    cpu: float
    grown: int


def main() -> None:
    """Send the file with both, in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512, help="size of the file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4, help="parts at the same time")
    parser.add_argument("--data", type=Path, help="a folder for the file and the node")
    options = parser.parse_args()
    if not DIST.exists():
        parser.error("no compiled package: npm ci && npm run build --workspace @sennit/elytra")
    if not CHROMIUM.exists():
        parser.error(f"no browser at {CHROMIUM}: apt-get install chromium")
    found: dict[str, list[Figures]] = {"Python": [], "Chromium": []}
    with tempfile.TemporaryDirectory(prefix="browser-uploads-", dir=options.data) as name:
        folder = Path(name)
        write_file(folder / "rows.csv", options.megabytes)
        (folder / "site").mkdir()
        with (
            site(DIST, folder / "site", None) as address,
            running_node(folder / "node", SENNIT_NETWORK__ALLOWED_ORIGINS=address) as node,
            opened(address) as tab,
        ):
            tab.page.evaluate(_INPUT)
            tab.page.set_input_files("#file", folder / "rows.csv")
            for _ in range(options.rounds):
                found["Python"].append(
                    from_python(node.url, node.token, folder / "rows.csv", options.workers)
                )
                found["Chromium"].append(from_tab(tab.page, node.url, node.token, options.workers))
                print(f"{found['Python'][-1]} {found['Chromium'][-1]}", file=sys.stderr)
    print_table(found, (options.megabytes * MIB) / 1e6)


def write_file(path: Path, megabytes: int) -> None:
    """Write lines that no compression or cache of blocks could shorten."""
    draw = random.Random(5)
    with path.open("wb") as file:
        for _ in range(megabytes):
            rows = (draw.randbytes(63).hex().encode() + b",\n" for _ in range(MIB // 128))
            file.write(b"".join(rows))


def from_python(url: str, token: str, path: Path, parallel: int) -> Figures:
    """Send the file with the Python client."""
    transport = Transport(url, token)
    options = SendOptions(parallel=parallel, resume=False)

    def send() -> float:
        begin = time.perf_counter()
        upload = send_file(transport, path, path.name, options)
        seconds = time.perf_counter() - begin
        transport.request("DELETE", f"/api/uploads/{upload}")
        return seconds

    try:
        return measured([psutil.Process()], send)
    finally:
        transport.close()


def from_tab(page: Page, url: str, token: str, workers: int) -> Figures:
    """Send the file from the page."""
    browsers = [
        each
        for each in psutil.Process().children(recursive=True)
        if "chrom" in Path(each.exe()).name
    ]
    return measured(browsers, lambda: float(page.evaluate(_SEND, [url, token, workers])))


def measured(processes: list[psutil.Process], work: Callable[[], float]) -> Figures:
    """Run the work, which returns its seconds; measure the sender's processes."""
    before, most = [each.memory_info().rss for each in processes], 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.05):
            grown = (
                each.memory_info().rss - base for each, base in zip(processes, before, strict=True)
            )
            most = max(most, *grown)

    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu = cpu_seconds(processes)
    try:
        wall = work()
    finally:
        ended.set()
        watcher.join()
    return Figures(wall, cpu_seconds(processes) - cpu, most)


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """Return the CPU seconds of all processes so far."""
    times = [each.cpu_times() for each in processes]
    return sum(each.user + each.system for each in times)


def print_table(found: dict[str, list[Figures]], megabytes: float) -> None:
    """Print the best of each figure, and the ratios to the Python client."""
    wall = {name: min(each.wall for each in rounds) for name, rounds in found.items()}
    cpu = {name: min(each.cpu for each in rounds) for name, rounds in found.items()}
    print(f"{megabytes:.0f} MB{'':12}{'MB/s':>8}{'ratio':>8}{'CPU s':>8}{'ratio':>8}{'memory':>10}")
    for name, rounds in found.items():
        grown = max(each.grown for each in rounds) / MIB
        print(
            f"{name:18}{megabytes / wall[name]:8.0f}{wall['Python'] / wall[name]:8.2f}"
            f"{cpu[name]:8.2f}{cpu['Python'] / cpu[name]:8.2f}{grown:+6.0f} MiB"
        )


if __name__ == "__main__":
    main()
