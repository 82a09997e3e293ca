"""llama.cpp's own server over a GGUF file: `python -m tests.support.llamacpp_server FILE SLOTS THREADS`.

It prints the URL that it listens at once the model is there, and ends when its standard input does.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def llamacpp_server(file: Path, log: Path, slots: int = 2, threads: int = 1) -> Iterator[str]:
    """The URL of a server that decodes `slots` texts at a time and writes its log to `log`."""
    command = [sys.executable, "-m", "tests.support.llamacpp_server", str(file), str(slots), str(threads)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True)
    assert process.stdin and process.stdout
    try:
        url = process.stdout.readline().strip()
        assert url, log.read_text()
        yield url
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def main() -> None:
    import xllamacpp

    file, slots, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    parameters = xllamacpp.CommonParams()
    parameters.model.path = file
    parameters.hostnames, parameters.port = ["127.0.0.1"], 0
    parameters.n_parallel = slots
    parameters.n_ctx = 4096 * slots
    parameters.cpuparams.n_threads = threads
    parameters.use_jinja = True
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
