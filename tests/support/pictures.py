"""Pictures that tests send: ordinary ones, pages with text, and hostile ones."""

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image, ImageDraw, ImageFont

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
ORIENTATION, GPS = 0x0112, 0x8825
WORDS = (
    "the warpage of a wafer was measured after each step with a stylus and the mean of five values is shown in the "
    "table below while the oven stayed at a constant temperature for ten hours before the samples were cooled in "
    "dry air and weighed again on the same balance by another person who did not know their order"
).split()


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The picture as a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def data_url(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def with_text(text: str, size: tuple[int, int] = (640, 160), points: int = 40) -> bytes:
    """A PNG with black words on white."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text((20, 40), text, fill="black", font=ImageFont.truetype(str(FONT), points))
    return saved(image)


def page(number: int, points: int, lines: int = 12) -> tuple[bytes, str]:
    """A page with `lines` lines of text of that size in pixels, and the text. Each number is another page."""
    font = ImageFont.truetype(str(FONT), points)
    rows, at = [], number * 7
    for row in range(lines):
        words = [WORDS[(at + place * (number % 5 + 1)) % len(WORDS)] for place in range(8)]
        words.insert(row % 8, f"{(number * 37 + row * 11) % 1000 / 10}")
        rows.append(" ".join(words))
        at += 9
    width = int(max(font.getlength(row) for row in rows)) + 80
    image = Image.new("RGB", (width, int(points * 1.6 * lines) + 80), "white")
    drawing = ImageDraw.Draw(image)
    for row, text in enumerate(rows):
        drawing.text((40, 40 + row * points * 1.6), text, fill="black", font=font)
    return saved(image), "\n".join(rows)


def halves(orientation: int | None = None, kind: str = "JPEG") -> bytes:
    """80 x 40 pixels, red on the left and blue on the right, and a GPS position in its EXIF data. With an
    `orientation`, the pixels are stored so that a viewer who obeys it sees that."""
    image = Image.new("RGB", (80, 40), "red")
    image.paste("blue", (40, 0, 80, 40))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    if orientation in undo:
        image = image.transpose(undo[orientation])
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    exif.get_ifd(GPS)[1] = "N"
    exif.get_ifd(GPS)[2] = (48.0, 51.0, 29.5)
    return saved(image, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2, extra: bytes = b"") -> bytes:
    """A PNG whose header says what it is told, with `rows` compressed."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def hostile() -> Iterator[tuple[str, bytes, bool | None]]:
    """50 files: a name, the content, and whether it is a picture that can be shown; None: either will do."""
    plain = Image.radial_gradient("L").convert("RGB").resize((60, 40))
    kinds = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
    for kind in kinds:
        whole = saved(plain, kind)
        yield f"cut at half.{kind}", whole[: len(whole) // 2], None
        yield f"header alone.{kind}", whole[:24], False
        yield f"garbled.{kind}", whole[:60] + bytes(byte ^ 0x5A for byte in whole[60:]), None
        yield f"with a script after it.{kind}", whole + b"<script>alert(1)</script>", True
    yield "empty", b"", False
    yield "text.png", b"I am no picture", False
    yield "svg.png", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', False
    yield "svg with an entity.png", b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "aa">]><svg>&a;</svg>', False
    yield "html.png", b"<html><img src=x onerror=alert(1)></html>", False
    yield "pdf.png", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", False
    yield "eps.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ls) run\n", False
    yield "zip.png", b"PK\x03\x04" + bytes(40), False
    yield "png and zip", saved(plain) + b"PK\x05\x06" + bytes(18), True
    yield "48 megapixels.png", png(8000, 6000, bytes(1000)), False
    yield "a bomb of zeros.png", png(60_000, 60_000, bytes(10_000_000)), False
    yield "4 billion wide.png", png(2**31 - 1, 2**31 - 1, b""), False
    yield "no width.png", png(0, 10, b""), False
    yield "a line.png", saved(Image.new("RGB", (5000, 1))), False
    yield "fewer rows than said.png", png(100, 100, bytes(301)), None
    text = zlib.compress(bytes(60_000_000), 9)
    yield "a text bomb.png", png(4, 4, bytes(52), extra=chunk(b"zTXt", b"Comment\0\0" + text)), None
    yield "a profile bomb.png", png(4, 4, bytes(52), extra=chunk(b"iCCP", b"x\0\0" + text)), None
    frames = [plain.rotate(angle) for angle in range(0, 100, 5)]
    yield "animated.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), True
    yield "animated.webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]), True
    yield "cmyk.jpg", saved(plain.convert("CMYK"), "JPEG"), True
    yield "cmyk.tiff", saved(plain.convert("CMYK"), "TIFF"), True
    yield "palette.png", saved(plain.convert("P")), True
    yield "palette with transparency.png", saved(plain.convert("P"), transparency=0), True
    yield "one bit.png", saved(plain.convert("1")), True
    yield "16 bit.png", saved(Image.new("I;16", (30, 20), 40_000)), True
    yield "float.tiff", saved(Image.new("F", (30, 20), float("nan")), "TIFF"), True
