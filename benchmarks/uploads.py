"""Uploads and downloads: how long a file takes, and how much memory of the server."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.tables import print_table
from tests.support.server_process import REPOSITORY, Server, end, start
from tests.support.uploads import END, FORM, part, peak_memory

COLUMNS = ("what", "seconds", "MB/s", "the server's memory, at most")
BLOCK_BYTES = 1024 * 1024


def report(folder: Path, mebibytes: int) -> None:
    """Upload and download a file of that size, and print a table."""
    server = start(folder / "server", REPOSITORY, {"AUTOLOAD": 0})
    try:
        # The first of each warms up: threads, and code that is imported late.
        _send(server, "warm-up", 1)
        _fetch(server, "warm-up", 1)
        rows = []
        transfers = {
            "upload": lambda: _send(server, "measured", mebibytes),
            "download": lambda: _fetch(server, "measured", mebibytes),
        }
        for what, transfer in transfers.items():
            with peak_memory(server) as growth:
                began = time.perf_counter()
                transfer()
                seconds = time.perf_counter() - began
            rate = mebibytes * BLOCK_BYTES / 10**6 / seconds
            memory = f"+{growth[0] / 10**6:.1f} MB"
            rows.append([f"{what} of {mebibytes:,} MiB", f"{seconds:.1f}", f"{rate:,.0f}", memory])
        print_table(COLUMNS, rows)
    finally:
        end(server)


def _send(server: Server, session: str, mebibytes: int) -> None:
    block = os.urandom(BLOCK_BYTES)

    def body() -> Iterator[bytes]:
        head, tail = part("files", b"|", "big.bin").split(b"|")
        yield head
        for _ in range(mebibytes):
            yield block
        yield tail + END

    answer = server.session.post(
        f"/sessions/{session}/files", data=body(), headers={"Content-Type": FORM}, timeout=600
    )
    assert answer.json()["files"][0]["bytes"] == mebibytes * BLOCK_BYTES, answer.text


def _fetch(server: Server, session: str, mebibytes: int) -> None:
    with server.session.get(f"/sessions/{session}/files/big.bin", stream=True) as answer:
        received = sum(len(chunk) for chunk in answer.iter_content(BLOCK_BYTES))
    assert received == mebibytes * BLOCK_BYTES
