"""The editor's bundle is the one that its script made, and may be given away."""

import hashlib
import json
import re

from server.web.assets import FOLDER

EDITOR = FOLDER / "editor"
SOURCE = FOLDER.parent / "editor-source"


def test_the_bundle_fits_its_hash() -> None:
    digest, name = (EDITOR / "editor.js.sha256").read_text().split()
    assert hashlib.sha256((EDITOR / name).read_bytes()).hexdigest() == digest


def test_the_licence_of_each_package_is_there() -> None:
    lock = json.loads((SOURCE / "package-lock.json").read_text())["packages"]
    used = json.loads((SOURCE / "package.json").read_text())["devDependencies"]
    licences = (EDITOR / "LICENSES.txt").read_text()
    for name in used.keys() - {"esbuild"}:
        assert f"{name} {lock[f'node_modules/{name}']['version']} (MIT)\n" in licences


def test_the_versions_are_pinned() -> None:
    assert all(
        re.fullmatch(r"\d+\.\d+\.\d+", version)
        for version in json.loads((SOURCE / "package.json").read_text())["devDependencies"].values()
    )


def test_the_bundle_runs_where_eval_is_forbidden() -> None:
    assert not re.search(r"\beval\(|new Function\b", (EDITOR / "editor.js").read_text())
