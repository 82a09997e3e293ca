"""Archives and compressed files: listed, never extracted."""

import bz2
import gzip
import lzma
import tarfile
import zlib
from pathlib import PurePosixPath
from typing import IO, Any

from .result import Analysis, Deadline, File, Refused, counted, cut
from .zip_bounds import open_zip

_MAX_LISTED = 300
_MAX_MEMBERS = 50_000
_MAX_INFLATED = 256 * 1024 * 1024
_MAX_HEADER = 1024 * 1024
_OPENERS: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}


def analyse(file: File, kind: str) -> Analysis:
    if kind == "zip":
        return _zip(file)
    if kind == "tar":
        return _tar(file, kind, open(file.path, "rb"))
    if file.size < 20 and kind != "gzip":
        raise Refused("The compressed file is cut off.")
    try:
        with _OPENERS[kind](file.path) as content:
            beginning = content.read(64 * 1024)
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise Refused(f"The compressed file is damaged or cut off: {error}.") from error
    if beginning[257:262] == b"ustar":
        return _tar(file, kind, _OPENERS[kind](file.path))
    return _single(file, kind, beginning)


def _zip(file: File) -> Analysis:
    skipped: list[str] = []
    with open_zip(file) as archive:
        members = archive.infolist()
        listed = [
            _member(info.filename, info.file_size)
            | {"packed_bytes": info.compress_size}
            | ({"encrypted": True} if info.flag_bits & 1 else {})
            for info in members[:_MAX_LISTED]
        ]
        total, packed = sum(info.file_size for info in members), sum(info.compress_size for info in members)
        folders = sum(info.is_dir() for info in members)
    if len(members) > _MAX_LISTED:
        skipped.append(
            f"{counted(len(members) - _MAX_LISTED, 'member')} after the first {_MAX_LISTED} are not listed."
        )
    details = {
        "member_count": len(members) - folders,
        "claimed_bytes": total,
        "members": listed,
        "notes": _warnings(listed, total, packed),
    }
    first = next((info.filename for info in members if not info.is_dir()), "")
    code = f"import zipfile\n\nwith zipfile.ZipFile({file.name!r}) as archive:\n    data = archive.read({first!r})"
    summary = f"Zip archive with {counted(len(members) - folders, 'file')}, {total:,} bytes unpacked"
    return Analysis("zip", summary, details, code if first else "", skipped)


def _tar(file: File, kind: str, content: Any) -> Analysis:
    members: list[dict[str, Any]] = []
    skipped: list[str] = []
    count = total = 0
    deadline = Deadline(1.0)
    bounded = _Bounded(content, deadline)
    first = ""
    with content:
        try:
            with tarfile.open(fileobj=bounded, mode="r:") as archive:  # type: ignore[call-overload]  # it reads and seeks
                while (info := archive.next()) is not None:
                    # tarfile keeps every header.
                    archive.members.clear()
                    count, total = count + 1, total + info.size
                    first = first or (info.name if info.isfile() else "")
                    if len(members) < _MAX_LISTED:
                        kind_of = "file" if info.isfile() else "folder" if info.isdir() else "link or device"
                        members.append(_member(info.name, info.size) | ({} if info.isfile() else {"type": kind_of}))
                    if count == _MAX_MEMBERS or deadline.passed():
                        skipped.append(f"The archive was read up to member {count:,}, for lack of time.")
                        break
        except _StopReading as stop:
            skipped.append(f"The archive was read up to member {count:,}: {stop}.")
        except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            if not members:
                raise Refused(f"The tar archive is damaged or cut off: {error}.") from error
            skipped.append(f"The archive is damaged or cut off after member {count:,}: {error}.")
    if count > len(members):
        skipped.append(f"{counted(count - len(members), 'member')} after the first {len(members)} are not listed.")
    details = {
        "member_count": count,
        "claimed_bytes": total,
        "members": members,
        "notes": _warnings(members, total, file.size),
    }
    code = f"import tarfile\n\nwith tarfile.open({file.name!r}) as archive:\n"
    code += f"    data = archive.extractfile({first!r}).read()"
    name = {
        "tar": "Tar archive",
        "gzip": "Tar archive (gzip)",
        "bzip2": "Tar archive (bzip2)",
        "xz": "Tar archive (xz)",
    }[kind]
    return Analysis(
        "tar",
        f"{name} with {counted(count, 'member')}, {total:,} bytes unpacked",
        details,
        code if first else "",
        skipped,
    )


def _single(file: File, kind: str, beginning: bytes) -> Analysis:
    """One compressed file. Its inflated size is measured, up to 256 MiB."""
    size, deadline, skipped = 0, Deadline(0.8), []
    try:
        with _OPENERS[kind](file.path) as content:
            while chunk := content.read(1024 * 1024):
                size += len(chunk)
                if size > _MAX_INFLATED or deadline.passed():
                    skipped.append(f"It inflates to more than {size:,} bytes: the rest was not read.")
                    break
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise Refused(f"The compressed file is damaged or cut off after {size:,} inflated bytes: {error}.") from error
    from .encoding import is_text

    text = is_text(beginning)
    module = {"gzip": "gzip", "bzip2": "bz2", "xz": "lzma"}[kind]
    details: dict[str, Any] = {"inflated_bytes": size, "content": "text" if text else "binary"}
    if text:
        details["text"] = beginning[:1_000].decode("utf-8", "replace")
    mode = "rt" if text else "rb"
    code = f"import {module}\n\nwith {module}.open({file.name!r}, {mode!r}) as file:\n    data = file.read()"
    summary = f"{kind} file with {'at least ' if skipped else ''}{size:,} bytes of {details['content']}"
    return Analysis(kind, summary, details, code, skipped)


def _member(name: str, size: int) -> dict[str, Any]:
    return {"name": cut(name, 200), "bytes": size}


def _warnings(members: list[dict[str, Any]], total: int, packed: int) -> list[str]:
    """What is dangerous in extracting the archive."""
    notes = []
    if total > 1024**3 or (total > 100 * 1024**2 and total > 200 * max(1, packed)):
        notes.append(f"Do not extract it without a limit: it claims {total:,} bytes.")
    outside = [member["name"] for member in members if _is_outside(member["name"])]
    if outside:
        notes.append(f"Names that lead out of the folder, such as {outside[0]!r}: extract none of these.")
    if any("encrypted" in member for member in members):
        notes.append("Some members are encrypted.")
    return notes


def _is_outside(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or (len(name) > 1 and name[1] == ":")


class _StopReading(Exception):
    """A bound is reached. The message says which."""


class _Bounded:
    """A file that refuses what tarfile believes of a hostile header: large reads, and inflating without an end."""

    def __init__(self, content: IO[bytes], deadline: Deadline) -> None:
        self._content, self._deadline = content, deadline

    def tell(self) -> int:
        return self._content.tell()

    def seek(self, position: int, whence: int = 0) -> int:
        self._check(position if whence == 0 else 0)
        # A compressed file inflates all that it skips.
        while isinstance(self._content, gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile) and self.tell() < position:
            if not self._content.read(min(1024 * 1024, position - self.tell())):
                break
            self._check(self.tell())
        return self._content.seek(position, whence)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise _StopReading("a header claims more than 1 MiB")
        self._check(self._content.tell())
        return self._content.read(size)

    def _check(self, position: int) -> None:
        if self._deadline.passed():
            raise _StopReading("for lack of time")
        if isinstance(self._content, gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile) and position > _MAX_INFLATED:
            raise _StopReading("it inflates to more than 256 MiB")
