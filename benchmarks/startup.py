"""From the start of the process to the first answers."""

import time
from pathlib import Path

from tests.support.server_process import REPOSITORY, end, start

QUESTION = {"question": "What is 37 * 52?"}


def measure(folder: Path, times: int) -> dict[str, list[float]]:
    """Seconds from the start of a server to its first `/health`, and to its first answer to a question."""
    health, answer = [], []
    for number in range(times):
        began = time.perf_counter()
        server = start(folder / str(number), REPOSITORY, {})
        try:
            health.append(time.perf_counter() - began)
            server.wait_until_ready()
            asked = server.session.post("/run_script", json=QUESTION)
            asked.raise_for_status()
            answer.append(time.perf_counter() - began)
        finally:
            end(server)
    return {"start to first /health": health, "start to first answer": answer}
