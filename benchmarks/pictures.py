"""How long a picture takes before a model has it: decoded in the sandbox and stored; and read by OCR."""

import statistics
import time
from pathlib import Path

from PIL import Image

from benchmarks.tables import milliseconds, p95, print_table
from constants import Settings
from server.files.folders import SessionFolders
from server.files.session_files import SessionFiles
from server.images.image_part import ImagePart
from server.images.pictures import Pictures
from server.sandbox.sandboxes import Sandboxes
from tests.support.pictures import data_url, page, saved


class _TextModel:
    """A model that takes no images, so that they are read for it."""

    takes_images = False
    context_length = 100_000

    def image_tokens(self, part: ImagePart) -> int:
        """None: it sees no picture."""
        return 0


def report(folder: Path, few: bool) -> None:
    """Print the tables."""
    settings = Settings(DATA_DIR=folder, HOST="127.0.0.1", SANDBOX_SPARES=1)
    folders = SessionFolders(folder / "sessions")
    files = SessionFiles(folders, settings.SESSION_FILES_BYTES)
    sandboxes = Sandboxes(settings, folders)
    pictures = Pictures(settings, sandboxes, folders, files)
    try:
        _report(pictures, few)
    finally:
        pictures.close()
        sandboxes.close()


def _report(pictures: Pictures, few: bool) -> None:
    times = 1 if few else 15
    noise = Image.effect_noise((4000, 3000), 60).convert("RGB")
    sent = {
        "a chart, PNG of 800 x 600": saved(Image.radial_gradient("L").resize((800, 600)).convert("RGB")),
        "a photo, JPEG of 12 megapixels": saved(noise, "JPEG", quality=85),
    }
    rows = []
    pictures.take(data_url(page(0, 20)[0]), "main", None, is_url=True)  # starts the sandbox
    for name, content in sent.items():
        seconds = [_seconds(pictures, content) for _ in range(times)]
        rows.append([name, f"{len(content):,}", str(times), *map(milliseconds, _figures(seconds))])
    print_table(("decoded and stored", "bytes", "n", "p50", "p95", "most"), rows)
    rows = []
    for points in (20, 28, 40):
        pages = [page(number, points)[0] for number in range(1 if few else 5)]
        parts = [pictures.take(data_url(content), "main", None, is_url=True) for content in pages]
        seconds = []
        for part in parts:
            began = time.perf_counter()
            pictures.shown([part], _TextModel(), lambda text, tokens: text, lambda: None)
            seconds.append(time.perf_counter() - began)
        first, *others = seconds if points == 20 else [0.0, *seconds]
        if points == 20:
            rows.append(["the first one, with the imports", "1", *map(milliseconds, _figures([first]))])
        if others:
            rows.append([f"12 lines of {points} pixels", str(len(others)), *map(milliseconds, _figures(others))])
    print_table(("OCR of", "n", "p50", "p95", "most"), rows)


def _seconds(pictures: Pictures, content: bytes) -> float:
    began = time.perf_counter()
    pictures.take(data_url(content), "main", None, is_url=True)
    return time.perf_counter() - began


def _figures(seconds: list[float]) -> tuple[float, float, float]:
    return statistics.median(seconds), p95(seconds), max(seconds)
