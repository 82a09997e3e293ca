"""Decoding and OCR as the sandbox does them, in processes of their own: they limit what the process may use."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.server_process import REPOSITORY

SIDE = 1568
SECONDS = 1500.0


def decode_all(folder: Path, pictures: Mapping[str, bytes], side: int = SIDE) -> dict[str, dict[str, Any]]:
    """What `decode` says of each picture, with its `pixels` as bytes; `crashed` for one that ended its process."""
    names = list(pictures)
    for number, name in enumerate(names):
        (folder / f"{number}").write_bytes(pictures[name])
    _run("decode", folder, len(names), side)
    found = {}
    for number, name in enumerate(names):
        reply = folder / f"{number}.json"
        found[name] = json.loads(reply.read_text()) if reply.exists() else {"crashed": True}
        if "width" in found[name]:
            found[name]["pixels"] = (folder / f"{number}.pixels").read_bytes()
    return found


def read_all(folder: Path, pages: Sequence[tuple[bytes, int, int]]) -> list[dict[str, Any]]:
    """What `read` says of each page: RGB values, width, height."""
    for number, (pixels, width, height) in enumerate(pages):
        (folder / f"{number}").write_bytes(pixels)
        (folder / f"{number}.size").write_text(f"{width} {height}")
    _run("ocr", folder, len(pages), 0)
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(len(pages))]


def _run(what: str, folder: Path, count: int, side: int) -> None:
    command = [sys.executable, "-m", "tests.support.decoded_pictures", what, str(folder), str(count), str(side)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ended.returncode == 0, ended.stderr


def _main(what: str, folder: Path, count: int, side: int) -> None:
    from server.sandbox.inside import ocr, pixels

    os.chdir(folder)
    for number in range(count):
        if what == "ocr":
            width, height = map(int, Path(f"{number}.size").read_text().split())
            Path(f"{number}.json").write_text(json.dumps(ocr.read(str(number), width, height)))
        elif os.fork() == 0:
            try:
                reply = pixels.decode(str(number), f"{number}.pixels", side)
                Path(f"{number}.json").write_text(json.dumps(reply))
            finally:
                os._exit(0)
        else:
            os.wait()


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
