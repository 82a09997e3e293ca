"""Opens zip archives without trusting them: what they claim, and what they really inflate to."""

import re
import struct
import zipfile
import zlib
from typing import IO

from .result import Deadline, File, Refused

_MAX_DIRECTORY = 8 * 1024 * 1024
"""Bytes of the table of contents, which is read into memory: about 100,000 members."""
MAX_INFLATED = 128 * 1024 * 1024
"""Bytes of all members of an office file together."""
_CHUNK = 256 * 1024
_DECLARATION = re.compile(rb"<!(DOCTYPE|ENTITY)", re.IGNORECASE)


def open_zip(file: File) -> zipfile.ZipFile:
    """The archive, for a `with`. Raises `Refused` if it is damaged or its table of contents is too large."""
    with open(file.path, "rb") as content:
        content.seek(max(0, file.size - 65_557))
        end = content.read()
    found = end.rfind(b"PK\x05\x06")
    if found < 0 or len(end) - found < 22:
        raise Refused("The zip archive is cut off: its table of contents, which is at the end, is missing.")
    (directory,) = struct.unpack_from("<I", end, found + 12)
    if directory == 0xFFFFFFFF or (end64 := end.rfind(b"PK\x06\x06")) >= 0:
        end64 = end.rfind(b"PK\x06\x06")
        if end64 >= 0 and len(end) - end64 >= 48:
            (directory,) = struct.unpack_from("<Q", end, end64 + 40)
    if directory > _MAX_DIRECTORY:
        raise Refused("The zip archive's table of contents is larger than 8 MiB: too many members.")
    try:
        return zipfile.ZipFile(file.path)
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError) as error:
        raise Refused(f"The zip archive is damaged: {error}.") from error


def check_office_zip(file: File) -> dict[str, int]:
    """The inflated size in bytes of each member of an office file, measured.

    Raises `Refused` if a member is encrypted, inflates to more than it claims, or declares XML entities, which office
    formats forbid; or if all together inflate to more than 128 MiB.
    """
    sizes: dict[str, int] = {}
    deadline = Deadline(1.2)
    with open_zip(file) as archive, open(file.path, "rb") as content:
        members = archive.infolist()
        if len(members) > 20_000:
            raise Refused(f"An office file with {len(members):,} parts; the maximum is 20,000.")
        claimed = sum(member.file_size for member in members)
        if claimed > MAX_INFLATED:
            raise Refused(
                f"The file inflates from {file.size:,} to {claimed:,} bytes; the maximum is {MAX_INFLATED:,}. "
                "Save it in parts, or as CSV or Parquet."
            )
        for member in members:
            if member.flag_bits & 1:
                raise Refused("The file is encrypted. Save it without a password.")
            if member.filename in sizes:
                raise Refused(
                    f"The file has two parts called {member.filename[:100]!r}: it is damaged or made to deceive."
                )
            sizes[member.filename] = _inflate(content, member, MAX_INFLATED - sum(sizes.values()), deadline)
    return sizes


def _inflate(content: IO[bytes], member: zipfile.ZipInfo, budget: int, deadline: Deadline) -> int:
    """Inflates a member itself: other readers do not stop where the table of contents says."""
    content.seek(member.header_offset)
    header = content.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise Refused(f"The part {member.filename[:100]!r} is missing: the file is damaged.")
    name, extra = struct.unpack_from("<HH", header, 26)
    content.seek(name + extra, 1)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(f"The part {member.filename[:100]!r} is compressed in a way that office files do not use.")
    inflate = zlib.decompressobj(-15) if member.compress_type == zipfile.ZIP_DEFLATED else None
    left, size, tail = member.compress_size, 0, b""
    is_xml = member.filename.lower().endswith((".xml", ".rels", ".vml"))
    while left > 0:
        packed = content.read(min(_CHUNK, left))
        if not packed:
            raise Refused(f"The part {member.filename[:100]!r} is cut off.")
        left -= len(packed)
        while packed:
            try:
                data = inflate.decompress(packed, _CHUNK) if inflate else packed
            except zlib.error as error:
                raise Refused(f"The part {member.filename[:100]!r} is damaged: {error}.") from error
            packed = inflate.unconsumed_tail if inflate else b""
            size += len(data)
            if size > budget or size > member.file_size:
                raise Refused(
                    f"The part {member.filename[:100]!r} inflates to more than it claims: made to fill memory."
                )
            if deadline.passed():
                raise Refused("The file inflates to more than can be checked in the time of an analysis.")
            if is_xml:
                _refuse_declarations(tail + data, member.filename, at_start=size == len(data))
                tail = data[-16:]
    return size


def _refuse_declarations(data: bytes, name: str, at_start: bool) -> None:
    if at_start and (data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:4]):
        data = data.replace(b"\0", b"")  # UTF-16
    if _DECLARATION.search(data):
        raise Refused(
            f"The part {name[:100]!r} declares XML entities, which office files must not: made to fill memory."
        )
