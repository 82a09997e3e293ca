"""How long `GET /health` takes while something else happens, measured by a process of its own.

A thread of the process that makes the load would measure its own wait for Python's lock. `python -m
tests.support.health_probe URL SECONDS` asks until its standard input is closed, and prints the times as JSON.
"""

import http.client
import json
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.support.server_process import REPOSITORY, Server

INTERVAL_SECONDS = 0.05
REQUEST_SECONDS = 60.0


@dataclass
class Health:
    """The times of the answers, in seconds, and what was no answer. Empty until the probe has ended."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def percentile(self, percent: int) -> float:
        """What so many of 100 answers stay below; the median for 50."""
        if len(self.seconds) < 2:
            return max(self.seconds, default=0.0)
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[percent - 1]

    def __str__(self) -> str:
        longest = max(self.seconds, default=0.0)
        figures = {"p50": self.percentile(50), "p99": self.percentile(99), "most": longest}
        shown = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in figures.items())
        return f"/health: n={len(self.seconds)}, {shown}, {len(self.failures)} failures"


@contextmanager
def probed(server: Server, interval: float = INTERVAL_SECONDS) -> Iterator[Health]:
    """Within it another process asks for `/health` all the time. The result is complete after the context."""
    command = [sys.executable, "-m", "tests.support.health_probe", server.url, str(interval)]
    probe = subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    health = Health()
    try:
        yield health
    finally:
        output, error = probe.communicate()
        assert probe.returncode == 0, error.decode()
        found = json.loads(output)
        health.seconds, health.failures = found["seconds"], found["failures"]


def _measure(url: str, interval: float) -> Health:
    """Ask until standard input ends. Each answer has a connection of its own, as a load balancer's check has."""
    health, where = Health(), urlsplit(url)
    while not select.select([sys.stdin], [], [], interval)[0]:
        began = time.monotonic()
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=REQUEST_SECONDS)
        try:
            connection.request("GET", "/health")
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200 or json.loads(body)["status"] != "ok":
                health.failures.append(f"{answer.status} {body[:200]!r}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            health.failures.append(repr(error))
        finally:
            connection.close()
        health.seconds.append(time.monotonic() - began)
    return health


def main(arguments: Sequence[str]) -> None:
    url, interval = arguments
    measured = _measure(url, float(interval))
    print(json.dumps({"seconds": measured.seconds, "failures": measured.failures}))


if __name__ == "__main__":
    main(sys.argv[1:])
