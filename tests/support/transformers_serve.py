"""`transformers serve`, the nearest relative, as a process. Used by the tests and by the benchmarks."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.support.server_process import READY_SECONDS


@contextmanager
def transformers_serve(model: Path, folder: Path, *arguments: str) -> Iterator[str]:
    """The URL of a server over the weights in `model`, whose own files are in `folder`. `arguments` are further ones
    of its command line."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "output.txt"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + READY_SECONDS
    try:
        while True:
            try:
                assert requests.get(url + "/health", timeout=10).status_code == 200
                break
            except requests.ConnectionError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()
