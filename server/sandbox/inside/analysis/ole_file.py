"""OLE files: old Excel workbooks, encrypted office files, and old formats that are refused."""

import mmap

from . import workbook
from .result import Analysis, File, Refused


def analyse(file: File, kind: str) -> Analysis:
    with open(file.path, "rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data:
        streams = {
            name
            for name in ("EncryptedPackage", "Workbook", "Book", "WordDocument", "PowerPoint Document")
            if data.find(name.encode("utf-16-le") + b"\0\0") >= 0
        }
    if "EncryptedPackage" in streams:
        raise Refused("The file is encrypted. Save it without a password.")
    if streams & {"Workbook", "Book"}:
        return workbook.analyse(file, "xls")
    if "WordDocument" in streams:
        raise Refused("An old Word document (.doc) can't be read here. Save it as DOCX.")
    if "PowerPoint Document" in streams:
        raise Refused("Old slides (.ppt) can't be read here. Save them as PPTX.")
    raise Refused("The file is a container (OLE) without a workbook.")
