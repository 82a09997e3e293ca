"""The files of the pages, under a name that changes with their content, so that browsers may keep them for ever."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parent / "static"
PREFIX = "/ui/static"


@dataclass(frozen=True)
class Packaged:
    """A file of an installed package. `foreign`: the address of another server in it, which is emptied."""

    package: str
    path: str
    foreign: bytes = b""

    def read(self) -> bytes | None:
        """Its content; None: the package is not installed."""
        found = find_spec(self.package)
        if found is None or found.origin is None:
            return None
        data = (Path(found.origin).parent / self.path).read_bytes()
        # An image without data is not shown, and nothing is asked for.
        return data.replace(self.foreign, b"data:,") if self.foreign else data


PACKAGED = {
    "swagger-ui.css": Packaged("flask_openapi3_swagger", "templates/swagger/css/swagger-ui.css"),
    "swagger-ui.js": Packaged("flask_openapi3_swagger", "templates/swagger/js/swagger-ui-bundle.js"),
    "redoc.js": Packaged(
        "flask_openapi3_redoc",
        "templates/redoc/js/redoc.standalone.js",
        b"https://cdn.redoc.ly/redoc/logo-mini.svg",
    ),
}
"""Files of the pages that show the API, by their names among those in `static/`."""


@lru_cache(maxsize=1)
def version() -> str:
    """A hash of all files. They are read once: a new version of the pages needs a new server."""
    digest = hashlib.sha256()
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(FOLDER).as_posix().encode() + b"\0" + path.read_bytes())
    for name, file in PACKAGED.items():
        digest.update(name.encode() + b"\0" + (file.read() or b""))
    return digest.hexdigest()[:16]


@lru_cache
def compressed(data: bytes) -> bytes:
    """The gzip data of a file. They are made once, and all of them together take a megabyte."""
    return gzip.compress(data, mtime=0)


def url(path: str) -> str:
    """The URL of a file. Modules import one another by relative paths, so all have one version."""
    return f"{PREFIX}/{version()}/{path}"
