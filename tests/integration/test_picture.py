"""The picture of README.md is a recording of today's code."""

from pathlib import Path

from docs.images.first_session import PICTURE, draw, record, words
from tests.support.server_process import Server


def test_the_picture_shows_what_a_session_shows_now(server: Server, tmp_path: Path) -> None:
    now = words(draw(record(server, tmp_path)))
    assert words(PICTURE.read_text(encoding="utf-8")) == now, "run `make picture`"
