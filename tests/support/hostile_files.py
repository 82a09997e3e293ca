"""Files that are made to hurt the program that parses them."""

import gzip
import io
import json
import random
import sqlite3
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from tests.support import pdf_documents
from tests.support.hostile_office import EXTERNAL, LAUGHS, ZEROS, docx, hostile_office_files, pptx, xlsx, zipped
from tests.support.hostile_pdf import hostile_pdf_files

Maker = Callable[[], bytes]


def parquet() -> bytes:
    import pandas

    stream = io.BytesIO()
    pandas.DataFrame({"a": range(1000), "b": [f"text {number}" for number in range(1000)]}).to_parquet(stream)
    return stream.getvalue()


def sqlite(script: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(script)
        return path.read_bytes()


def png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def image(form: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(stream, form)
    return stream.getvalue()


def bomb(size: int, name: str = "bomb.bin") -> bytes:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w") as member,
    ):
        for _ in range(size // len(ZEROS)):
            member.write(ZEROS)
    return stream.getvalue()


def claiming(content: bytes, size: int) -> bytes:
    """A zip whose table of contents claims another inflated size for its first member."""
    at = content.find(b"PK\x01\x02")
    return content[: at + 24] + struct.pack("<I", size) + content[at + 28 :]


def big_tar_header() -> bytes:
    """A pax header that claims 8 GiB."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 8 * 1024**3 - 1
    return info.tobuf(tarfile.USTAR_FORMAT) + b"1" * 2048


def tiff(width: int, height: int, next_directory: int = 0) -> bytes:
    entries = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, 8),
    ]
    body = struct.pack("<H", len(entries))
    for tag, kind, value in entries:
        body += struct.pack("<HHII", tag, kind, 1, value)
    return b"II*\0" + struct.pack("<I", 16) + b"\0" * 8 + body + struct.pack("<I", next_directory)


RECURSIVE = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) AS c FROM n"


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def cut(maker: Maker) -> bytes:
    content = maker()
    return content[: len(content) * 2 // 3]


def begun(maker: Maker) -> bytes:
    return maker()[:40]


def damaged(maker: Maker, seed: int) -> bytes:
    """The file with a hundred bytes changed."""
    changed = bytearray(maker())
    chance = random.Random(seed)
    for _ in range(100):
        changed[chance.randrange(len(changed) // 20, len(changed))] = chance.randrange(256)
    return bytes(changed)


GENERATED = "y AS (hex(zeroblob(x)))"
TRIGGER = f"CREATE TRIGGER t AFTER INSERT ON a BEGIN INSERT INTO a {RECURSIVE}; END;"
LIST_OF_BILLIONS = bytes([0x15, 2, 0x19, 0xFC]) + b"\xff\xff\xff\xff\x07"


def hostile_files() -> dict[str, Maker]:
    """The content of each file, by its name."""
    made: dict[str, Maker] = {
        "zip_bomb.zip": lambda: bomb(300 * 1024**2),
        "zip_that_claims_4gb.zip": lambda: claiming(bomb(1024**2), 2**32 - 2),
        "zip_of_zips.zip": lambda: zipped({f"{n}.zip": bomb(16 * 1024**2) for n in range(4)}),
        "many_members.zip": lambda: zipped({f"{n:05}": b"" for n in range(30_000)}),
        "laughs.svg": (LAUGHS + '<svg xmlns="http://www.w3.org/2000/svg">&l9;</svg>').encode,
        "laughs.xml": (LAUGHS + "<z>&l9;</z>").encode,
        "external.xml": (EXTERNAL + "<z>&x;</z>").encode,
        "laughs.html": (LAUGHS + "<html><body>&l9;</body></html>").encode,
        "deep.xml": lambda: b"<a>" * 300_000,
        "deep.html": lambda: b"<!DOCTYPE html><html>" + b"<div>" * 200_000,
        "many_attributes.xml": lambda: b"<a " + b" ".join(b'a%d=""' % n for n in range(300_000)) + b"/>",
        "many_elements.html": lambda: b"<!DOCTYPE html><html><table>" + b"<tr><td>1" * 400_000,
        "quadratic.html": lambda: b"<!DOCTYPE html><html>" + b"<b><i><a>" * 30_000 + b"<table>" * 1_000,
        "deep.json": lambda: b"[" * 100_000 + b"]" * 100_000,
        "deep_objects.json": lambda: b'{"a":' * 100_000,
        "huge_number.json": lambda: b"[" + b"9" * 5_000_000 + b"]",
        "huge_exponent.json": lambda: b"[1e999999999, -1E+400]",
        "many_keys.json": lambda: json.dumps({f"key {n}": n for n in range(300_000)}).encode(),
        "many_items.json": lambda: b"[" + b"{}," * 1_000_000 + b"{}]",
        "open_string.json": lambda: b'["' + b"\\\\" * 3_000_000,
        "cut.json": lambda: b'{"a": [1, 2, {"b": ',
        "many_columns.csv": lambda: b",".join(b"c%d" % n for n in range(1_000_000)) + b"\n1,2\n",
        "billion_commas.csv": lambda: b"a,b\n1,2\n" + b"," * 30_000_000,
        "many_rows.csv": lambda: b"a,b\n" + b"1,2\n" * 4_000_000,
        "empty_rows.csv": lambda: b"\n" * 10_000_000 + b"a,b\n",
        "one_line.txt": lambda: b"x" * 30_000_000,
        "one_line.csv": lambda: b"x" * 30_000_000 + b",1\n",
        "open_quote.csv": lambda: b'a,b\n1,"' + b"x,y\n" * 3_000_000,
        "only_quotes.csv": lambda: b'"' * 3_000_000,
        "quotes_and_separators.csv": lambda: b'";' * 2_000_000,
        "huge_numbers.csv": lambda: b"a,b\n" + (b"9" * 100_000 + b",1\n") * 50,
        "nuls.csv": lambda: b"a,b\n" + b"\0,\0\n" * 100_000,
        "utf16_zeros.txt": lambda: b"\xff\xfe" + b"\0" * 10_000_000,
        "spaces.txt": lambda: b" " * 10_000_000,
        "pipes.md": lambda: b"|" * 3_000_000 + b"\n" + b"|-" * 1_000_000,
        "hashes.md": lambda: b"# x\n" * 800_000,
        "numbers_of_digits.csv": lambda: b"a;b\n" + (b"1." * 25 + b"1!;2\n") * 10_000,
        "png_of_2500_megapixels.png": lambda: png(50_000, 50_000),
        "png_inflates.png": lambda: png(5_000, 5_000, b"\0" * (5_000 * 15_001)),
        "png_without_pixels.png": lambda: png(100, 100),
        "png_text_bomb.png": lambda: png_with_text(64 * 1024**2),
        "tiff_bomb.tif": lambda: tiff(100_000, 100_000),
        "tiff_loop.tif": lambda: tiff(2, 2, next_directory=16),
        "tiff_strips.tif": lambda: tiff(5_000, 5_000),
        "gif_many_frames.gif": gif_with_frames,
        "sqlite_views.db": lambda: sqlite(
            f"CREATE TABLE a (x); INSERT INTO a VALUES (1); CREATE VIEW v AS {RECURSIVE};"
        ),
        "sqlite_triggers.db": lambda: sqlite(f"CREATE TABLE a (x); {TRIGGER}"),
        "sqlite_generated.db": lambda: sqlite(f"CREATE TABLE a (x, {GENERATED}); INSERT INTO a (x) VALUES (5e7);"),
        "sqlite_index.db": lambda: sqlite(
            "CREATE TABLE a (x); CREATE INDEX i ON a (hex(zeroblob(x))); INSERT INTO a VALUES (10);"
        ),
        "sqlite_view_as_table.db": view_as_table,
        "sqlite_blob.db": lambda: sqlite("CREATE TABLE a (x); INSERT INTO a VALUES (zeroblob(30000000));"),
        "sqlite_many_tables.db": lambda: sqlite(
            "BEGIN;" + "".join(f"CREATE TABLE t{n} (x);" for n in range(3_000)) + "COMMIT;"
        ),
        "parquet_footer.parquet": lambda: b"PAR1" + b"\xff" * 1000 + struct.pack("<I", 1000) + b"PAR1",
        "parquet_footer_size.parquet": lambda: parquet()[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1",
        "parquet_list_size.parquet": lambda: b"PAR1" + LIST_OF_BILLIONS + struct.pack("<I", 9) + b"PAR1",
        "gzip_bomb.gz": lambda: gzip_bomb(300 * 1024**2),
        "tar_gzip_bomb.tar.gz": tar_gzip_bomb,
        "tar_header.tar": big_tar_header,
        "tar_header.tar.gz": lambda: gzip.compress(big_tar_header()),
        "tar_many.tar": lambda: b"".join(tarfile.TarInfo(f"{n}").tobuf() for n in range(30_000)) + b"\0" * 1024,
        "tar_negative.tar": negative_tar,
        "xls_noise.xls": lambda: (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "Workbook\0".encode("utf-16-le") + noise(50_000)
        ),
        "noise.bin": lambda: noise(1_000_000),
        "noise.csv": lambda: noise(100_000, 2),
    }
    whole: dict[str, Maker] = {
        "a.xlsx": xlsx,
        "a.docx": docx,
        "a.pptx": pptx,
        "a.parquet": parquet,
        "a.png": lambda: image("PNG"),
    }
    whole |= {
        "a.jpg": lambda: image("JPEG"),
        "a.tif": lambda: image("TIFF"),
        "a.pdf": lambda: pdf_documents.text_pages(3),
    }
    whole |= {"a.db": lambda: sqlite("CREATE TABLE a (x); INSERT INTO a VALUES ('" + "x" * 5000 + "');")}
    whole |= {
        "a.zip": lambda: bomb(1024**2),
        "a.gz": lambda: gzip.compress(noise(10_000)),
        "a.gif": lambda: image("GIF"),
    }
    for name, maker in whole.items():
        made[f"cut_{name}"] = partial(cut, maker)
        made[f"begun_{name}"] = partial(begun, maker)
        for seed in range(2):
            made[f"damaged_{seed}_{name}"] = partial(damaged, maker, seed)
    return made | hostile_office_files() | hostile_pdf_files()


def png_with_text(size: int) -> bytes:
    body = b"key\0\0" + zlib.compress(b"x" * size)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    plain = png(2, 2, b"\0" * 14)
    return plain[:33] + chunk + plain[33:]


def gif_with_frames() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    frames = [Image.new("P", (1, 1), number % 2) for number in range(3_000)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def view_as_table() -> bytes:
    """A view that the schema calls a table."""
    return sqlite(
        f"CREATE TABLE a (x); CREATE VIEW v AS {RECURSIVE}; PRAGMA writable_schema = ON;"
        "UPDATE sqlite_master SET type = 'table' WHERE name = 'v';"
    )


def gzip_bomb(size: int) -> bytes:
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=1) as file:
        for _ in range(size // len(ZEROS)):
            file.write(ZEROS)
    return stream.getvalue()


def tar_gzip_bomb() -> bytes:
    """A first member of 300 MiB, and then another one."""
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=1) as file:
        for name in ("one", "two"):
            info = tarfile.TarInfo(name)
            info.size = 300 * 1024**2 if name == "one" else 0
            file.write(info.tobuf())
            for _ in range(info.size // len(ZEROS)):
                file.write(ZEROS)
    return stream.getvalue()


def negative_tar() -> bytes:
    """A member of negative size: the next header is this one again."""
    header = bytearray(tarfile.TarInfo("again").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"  # -512, in binary
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header) + b"\0" * 1024
