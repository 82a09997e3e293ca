"""Attempts to leave the sandbox: each is refused in it, and its control, the same code outside, succeeds."""

import builtins
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.escape_probes.probe import REACHED, REFUSED, Given, Probe, load
from tests.support.escape_targets import VARIABLE, add_probes, controls, files_of, run_cell, targets, what_is_here
from tests.support.server_process import REPOSITORY, Server, end, start

PROBES = load()
ATTACKER = "attacker"
HERE = what_is_here()
REASON = re.compile(rf"{REFUSED}: (\w+) (-?\d+) ")
MOST_WITHOUT_CONTROL = 15
OTHER_REFUSALS = {"MissedError", "URLError", "gaierror"}
"""Besides OSError and what is derived from it."""

ALLOWED_WITH_LANDLOCK = {
    "files.sees_that_a_file_exists": "Landlock does not check whether a path exists",
    "files.reads_the_configuration[/etc/os-release]": "it is a link to a file of /usr",
    "processes.opens_a_descriptor_for_it": "the process can't be signalled by it",
    "processes.asks_for_its_group": "which process ids are in use is not hidden",
    "rights.becomes_a_user[root]": "if the server's user is root, so is the sandbox's, without capabilities",
    "rights.becomes_a_group[root]": "the same",
    "set_id.starts_a_program_with_its_rights": "the mounts are the machine's; `no_new_privs` refuses the rights",
    "writes.has_a_writable_system": "the mounts are the machine's; the rules refuse the writing",
}
"""Probes that succeed with Landlock, by their name with or without its case, and why that is no escape."""


@dataclass
class Attacked:
    """A server with a session in which the probes are, and the outcomes of the controls."""

    server: Server
    given: Given
    outside: dict[str, str]

    def inside(self, probe: Probe) -> str:
        """The outcome of a probe in the sandbox."""
        code = f"__import__('escape_probes.probe').probe.run({probe.name!r}, {self.given.written()!r})"
        cell = run_cell(self.server, ATTACKER, code, timeout=30)
        assert cell["error"] is None, cell
        printed: str = cell["output"].strip()
        return printed


def _attacked(folder: Path, isolation: str) -> Iterator[Attacked]:
    secret = secrets.token_hex(16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, secret)
        server = start(
            folder / "server", REPOSITORY, {"AUTOLOAD": "false", "SANDBOX_MEMORY_GB": 0.5, "SANDBOX": isolation}
        )
    try:
        with targets(server, secret, isolation == "bubblewrap") as given:
            cell = run_cell(server, ATTACKER, "1")
            assert cell["isolation"] == isolation
            add_probes(files_of(server, ATTACKER))
            control = folder / "control"
            control.mkdir()
            yield Attacked(server, given, controls(given, control))
    finally:
        end(server)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    yield from _attacked(tmp_path_factory.mktemp("escapes"), "bubblewrap")


@pytest.fixture(scope="module")
def attacked_with_landlock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    yield from _attacked(tmp_path_factory.mktemp("escapes"), "landlock")


def _refused(outcome: str) -> tuple[str, int]:
    """Type and number of the error that a probe ended with."""
    found = REASON.match(outcome)
    assert found is not None, outcome
    return found[1], int(found[2])


def test_probes_have_controls() -> None:
    without = [name for name, probe in PROBES.items() if probe.without_control]
    assert len(PROBES) >= 150 and len(without) <= MOST_WITHOUT_CONTROL, without


@pytest.mark.parametrize("name", PROBES)
def test_an_escape(attacked: Attacked, name: str) -> None:
    _check(attacked, PROBES[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in PROBES if not {name, name.partition("[")[0]} & ALLOWED_WITH_LANDLOCK.keys()]
)
def test_an_escape_with_landlock(attacked_with_landlock: Attacked, name: str) -> None:
    _check(attacked_with_landlock, PROBES[name])


def _check(attacked: Attacked, probe: Probe) -> None:
    kind, _ = _refused(attacked.inside(probe))
    error = getattr(builtins, kind, None)
    # Any other error is a mistake in the probe.
    assert kind in OTHER_REFUSALS or (isinstance(error, type) and issubclass(error, OSError)), kind
    _check_control(probe, attacked.outside[probe.name])


def _check_control(probe: Probe, outcome: str) -> None:
    if outcome == REACHED or probe.without_control or not HERE.issuperset(probe.needs):
        return
    _, number = _refused(outcome)
    assert number in probe.may_lack, f"outside of the sandbox: {outcome}"
