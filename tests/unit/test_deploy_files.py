"""The files in deploy/ are what their programs accept."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server_process import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
PROGRAMS = Path(sys.executable).parent


def accepts(program: Path | str, *arguments: object) -> None:
    ended = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_dockerfile() -> None:
    accepts(PROGRAMS / "hadolint", DEPLOY / "Dockerfile")


def test_what_the_image_copies_is_in_its_context() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").split()
    copied = [
        name
        for line in (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
        if not name.startswith("--")
    ]
    assert len(copied) >= 5
    assert [name for name in copied if f"!{name}" not in ignored or not (REPOSITORY / name).exists()] == []


def test_compose() -> None:
    files = sorted(DEPLOY.glob("compose*.yaml"))
    assert len(files) == 2
    accepts(PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", *files)


def test_kubernetes() -> None:
    accepts(PROGRAMS / "kubernetes-validate", "--strict", *sorted((DEPLOY / "kubernetes").glob("*.yaml")))


def test_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed")
    # It looks whether the programs and the user exist.
    unit = (DEPLOY / "hearth.service").read_text(encoding="utf-8")
    changed = unit.replace("/opt/hearth/.venv/bin/python", "/bin/true").replace("User=hearth", "User=daemon")
    assert changed.count("/bin/true") == 1 and "User=daemon" in changed
    file = tmp_path / "hearth.service"
    file.write_text(changed, encoding="utf-8")
    ended = subprocess.run([program, "verify", str(file)], capture_output=True, text=True, check=False)
    own = [line for line in ended.stderr.splitlines() if "hearth.service" in line]
    assert own == [], ended.stderr
