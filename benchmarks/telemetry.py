"""What traces cost a question: two servers, one of which exports them, are asked the same in turns."""

import socket
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.questions import QUESTIONS
from benchmarks.tables import milliseconds, p95, print_table
from tests.support.server_process import REPOSITORY, Server, end, start

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
COLUMNS = (
    "traces", "n", "a question p50", "p95", "processor time a question, in all", "p50 of it until the answer",
    "more than off, pair by pair",
)  # fmt: skip
ARMS = OFF, ON, CONTENT = "off", "on", "on, with content"


def report(folder: Path, few: bool) -> None:
    """Print the table."""
    rounds = len(QUESTIONS) * (1 if few else 40)
    with _collector() as url:
        settings: dict[str, dict[str, object]] = {
            OFF: {},
            ON: {"OTLP_ENDPOINT": url},
            CONTENT: {"OTLP_ENDPOINT": url, "OTLP_CONTENT": "on"},
        }
        servers: dict[str, Server] = {}
        try:
            for arm in ARMS:
                servers[arm] = start(folder / arm.replace(" ", ""), REPOSITORY, settings[arm])
                servers[arm].wait_until_ready()
            _report(servers, rounds)
        finally:
            for server in servers.values():
                end(server)


def _report(servers: dict[str, Server], rounds: int) -> None:
    for server in servers.values():
        for question in QUESTIONS * 2:  # to warm up
            _ask(server, question)
    asked: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
    before = {arm: _processor_seconds(server) for arm, server in servers.items()}
    for number in range(rounds):
        # Each is the first as often as the others.
        first = number // len(QUESTIONS) % len(ARMS)
        for arm in ARMS[first:] + ARMS[:first]:
            asked[arm].append(_ask(servers[arm], QUESTIONS[number % len(QUESTIONS)]))
    rows = []
    for arm, server in servers.items():
        seconds, processor = zip(*asked[arm], strict=True)
        whole = (_processor_seconds(server) - before[arm]) / rounds
        row = [arm, str(rounds), *(milliseconds(one) for one in (statistics.median(seconds), p95(seconds), whole))]
        row.append(milliseconds(statistics.median(processor)))
        rows.append([*row, "-" if arm == OFF else _more([one for _, one in asked[OFF]], processor)])
    print_table(COLUMNS, rows)


def _more(off: Sequence[float], on: Sequence[float]) -> str:
    """The median of the differences, question by question, and the same in percent with its 95 % interval."""
    differences = sorted(one - other for one, other in zip(on, off, strict=True))
    # The ranks of a binomial interval of the median.
    half = round(0.98 * len(differences) ** 0.5)
    middle, base = len(differences) // 2, statistics.median(off) / 100
    low, high = differences[max(middle - half, 0)], differences[min(middle + half, len(differences) - 1)]
    more = statistics.median(differences)
    return f"{milliseconds(more)}: {more / base:.1f} % ({low / base:.1f} to {high / base:.1f})"


def _ask(server: Server, question: str) -> tuple[float, float]:
    """Seconds until the answer, and the server's processor seconds meanwhile."""
    began, before = time.perf_counter(), _processor_seconds(server)
    server.session.post("/run_script", json={"question": question}).raise_for_status()
    return time.perf_counter() - began, _processor_seconds(server) - before


def _processor_seconds(server: Server) -> float:
    """Of the server's own process: clock_getcpuclockid(3)."""
    return time.clock_gettime(~server.process.pid << 3 | 2)


@contextmanager
def _collector() -> Iterator[str]:
    """The address of a receiver that decodes nothing, so that it takes hardly any processor time itself."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as reader:  # the server has ended
            while line := reader.readline():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
                elif line == b"\r\n":
                    reader.read(length)
                    connection.sendall(OK)

    def accept() -> None:
        with suppress(OSError):  # it was closed
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
