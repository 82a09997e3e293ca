"""Runs each script against a server with the embedded model, and prints the table of docs/clients.md:
`python -m tests.clients`."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.clients.scripts import HEAD, Script, scripts
from tests.support.server_process import REPOSITORY, Server, end, start

SCRIPT_SECONDS = 600.0
"""A deadline and no measure."""
SETTINGS = ("OPENAI_", "LANGSMITH_", "LANGCHAIN_", "LITELLM_")
"""The caller's own settings of clients: other servers, and where to send traces."""


def works(script: Script, server: Server) -> bool:
    """Whether the script ends well. Prints what it says if it doesn't."""
    own = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": server.token}
    others = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    try:
        ended = subprocess.run(
            script.command,
            env={**others, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SCRIPT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        print(f"{script.path} had not ended after {late.timeout:g} s: {late.stdout!r}", file=sys.stderr)
        return False
    if ended.returncode:
        print(f"{script.path} ended with {ended.returncode}:\n{ended.stdout}", file=sys.stderr)
    return ended.returncode == 0


def main() -> int:
    """The exit code: 1 if a script failed."""
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        server = start(Path(folder) / "server", REPOSITORY, {})
        try:
            server.wait_until_ready()
            print("|", " | ".join(HEAD), "|")
            print("|---" * len(HEAD) + "|")
            for script in scripts():
                ended_well = works(script, server)
                failed = failed or not ended_well
                print("|", " | ".join(script.row(ended_well)), "|", flush=True)
        finally:
            end(server)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
