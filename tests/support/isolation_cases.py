"""What people's code can do to its process, and what its author then reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import requests

TOOL_SECONDS = 3
RELOAD_SECONDS = 15
FILE = "tools/trouble.py"
Place = Literal["import", "build", "call"]
PLACES: tuple[Place, ...] = ("import", "build", "call")

TOOL = '''
import ctypes, gc, glob, json, logging, os, re, signal, socket, struct, sys, threading, time

from langchain_core.tools import tool

held = []


def misbehave():
    for file in ("/proc/self/comm", "/proc/thread-self/comm"):
        with open(file, "w") as name:
            name.write("{comm}")
{code}


@tool
def trouble(expression: str) -> str:
    """Make trouble."""
    if {place!r} == "call":
        misbehave()
    return "survived"


def build_tool(llm):
    if {place!r} == "build":
        misbehave()
    return trouble


if {place!r} == "import":
    misbehave()
'''

MENDED = '''
from langchain_core.tools import tool


@tool
def trouble(expression: str) -> str:
    """Make no trouble."""
    return "mended"
'''

AGENT = '''
from server.sdk import ToolFailedError, call_tool

from .agent import Agent, AgentResult, Step


class Direct(Agent):
    """Calls a tool, whatever it is asked."""

    name = "direct"

    def __call__(self, question, history=()):
        given, error = {"expression": question}, None
        try:
            observation = call_tool(self.tools["trouble"], given, self.tool_seconds)
        except ToolFailedError as failure:
            observation = error = str(failure)
        return AgentResult(observation, "trouble", [Step("", "trouble", given, observation, error)], {})
'''


@dataclass(frozen=True)
class Outcome:
    """What a reload or a question reports to the author of the code."""

    status: int
    type: str
    """Of the error; of an error while code was loaded, its own. Empty for an answer."""
    message: str
    """Or the answer."""
    file: str | None = None
    line: int | None = None
    details: Any = None

    @staticmethod
    def of(answer: requests.Response) -> "Outcome":
        body = answer.json()
        if answer.ok:
            return Outcome(answer.status_code, "", body.get("answer", ""))
        error = body["error"]
        first = error["errors"][0] if error["type"] == "reload_failed" else error
        return Outcome(
            answer.status_code, first["type"], first["message"], first.get("file"), first.get("line"), error
        )


class Expected:
    """The outcome that a case must have."""

    def check(self, place: Place, line: int | None, outcome: Outcome) -> None:
        """Raises `AssertionError`. `line`: where in the tool's file it happens."""
        raise NotImplementedError


@dataclass(frozen=True)
class Ends(Expected):
    """The process ends, by itself or because the server ends it."""

    how: str
    signal: str | None = None
    exit_code: int | None = None
    is_placed: bool = False
    """Whether the place is known in any case."""

    def check(self, place: Place, line: int | None, outcome: Outcome) -> None:
        """See `Expected`."""
        assert self.how in outcome.message
        if place == "call":
            assert (outcome.status, outcome.type) == (502, "worker_crashed")
            assert (outcome.details["signal"], outcome.details["exit_code"]) == (self.signal, self.exit_code)
        else:
            assert (outcome.status, outcome.details["type"]) == (422, "reload_failed")
            assert outcome.type == (self.signal or "ProcessEndedError")
            assert "while the code was loaded" in outcome.message
        if self.is_placed or outcome.file is not None:
            assert (outcome.file, outcome.line) == (f"server/{FILE}", line)


@dataclass(frozen=True)
class Hangs(Expected):
    """It does not come to its end. `blocks`: nor can anything else in its process go on."""

    blocks: bool = False

    def check(self, place: Place, line: int | None, outcome: Outcome) -> None:
        """See `Expected`."""
        if place != "call":
            assert (outcome.status, outcome.type) == (422, "TimeoutError")
            assert f"did not finish within {RELOAD_SECONDS} seconds" in outcome.message
            assert (outcome.file, outcome.line) == (f"server/{FILE}", line)
            return
        assert f"did not answer within {TOOL_SECONDS} seconds" in outcome.message
        if self.blocks:
            assert (outcome.status, outcome.type) == (502, "worker_crashed")
            if outcome.file is not None:  # a process that gets no processor for a second can't say where it is
                assert (outcome.file, outcome.line) == (f"server/{FILE}", line)
        else:
            assert outcome.status == 200


@dataclass(frozen=True)
class Raises(Expected):
    """An exception, which is an observation for the model where a tool was called."""

    type: str

    def check(self, place: Place, line: int | None, outcome: Outcome) -> None:
        """See `Expected`."""
        if place == "call":
            assert outcome.status == 200
            assert outcome.message.startswith(self.type)
        else:
            assert (outcome.status, outcome.type) == (422, self.type)
            assert (outcome.file, outcome.line) == (f"server/{FILE}", line)


@dataclass(frozen=True)
class Works(Expected):
    """The code continues, and so does everything in its process."""

    def check(self, place: Place, line: int | None, outcome: Outcome) -> None:
        """See `Expected`."""
        assert (outcome.status, outcome.message) == (200, "survived")


@dataclass(frozen=True)
class OneOf(Expected):
    """It depends on the machine."""

    several: Sequence[Expected]

    def check(self, place: Place, line: int | None, outcome: Outcome) -> None:
        """See `Expected`."""
        failures = []
        for one in self.several:
            try:
                one.check(place, line, outcome)
                return
            except AssertionError as failure:
                failures.append(f"{one}: {failure}")
        raise AssertionError("\n".join([str(outcome), *failures]))


@dataclass(frozen=True)
class Case:
    """`code` is the body of a function; `# here` stands in the line that is to be named. `at_call`: what is expected
    where a tool does it, if that is something else."""

    name: str
    code: str
    expected: Expected
    at_call: Expected | None = None
    is_slow: bool = False
    """Whether somebody has to wait for a time limit."""

    def expects(self, place: Place) -> Expected:
        return self.at_call if place == "call" and self.at_call is not None else self.expected

    def comm(self, place: Place) -> str:
        """The name in `ps` of its processes: at most 15 characters."""
        return f"{PLACES.index(place)}-{self.name[:13]}"

    def tool(self, place: Place) -> str:
        body = "\n".join(f"    {line}" for line in self.code.strip().splitlines())
        return TOOL.format(comm=self.comm(place), code=body, place=place)

    def line(self, place: Place) -> int | None:
        lines = self.tool(place).splitlines()
        return next((number for number, line in enumerate(lines, 1) if line.endswith("# here")), None)


PROTOCOL = """
def descriptor():
    for number in range(100, 200):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                return number
        except OSError:
            pass
def send(message):
    data = json.dumps(message).encode()
    os.write(descriptor(), struct.pack("!I", len(data)) + data)
"""

HANGS = [
    Case("sleep", "time.sleep(10**6)  # here", Hangs(), is_slow=True),
    Case("regular-expression", 're.match("(a+)+$", 40 * "a" + "b")  # here', Hangs(blocks=True), is_slow=True),
    Case(
        "logging-lock",
        """
taken = threading.Event()
threading.Thread(target=lambda: (logging._acquireLock(), taken.set()), daemon=True).start()
taken.wait()
logging.getLogger("one.more")  # here
""",
        Hangs(),
        is_slow=True,
    ),
    Case(
        "import-lock",
        """
import _imp
assert "mailbox" not in sys.modules
taken = threading.Event()
threading.Thread(target=lambda: (_imp.acquire_lock(), taken.set(), time.sleep(10**6)), daemon=True).start()
taken.wait()
import mailbox  # here
""",
        Hangs(),
        is_slow=True,
    ),
    Case(
        "catches-everything",
        """
while True:
    try:
        time.sleep(0.01)  # here
    except BaseException:
        pass
""",
        Hangs(),
        is_slow=True,
    ),
    Case(
        "long-message",
        PROTOCOL + "os.write(descriptor(), b'\\0\\0\\xff\\xff')\ntime.sleep(10**6)  # here",
        Hangs(blocks=True),
        is_slow=True,
    ),
]

ENDS = [
    Case("segmentation-fault", "ctypes.string_at(0)  # here", Ends("ended with SIGSEGV", "SIGSEGV", is_placed=True)),
    Case("exit", "os._exit(3)", Ends("ended with exit code 3", exit_code=3)),
    Case("kill", "os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(10**6)", Ends("ended with SIGKILL", "SIGKILL")),
    Case(
        "stop", "os.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(10**6)", Ends("was stopped by SIGSTOP", "SIGSTOP")
    ),
    Case(
        "stack-overflow",
        """
sys.setrecursionlimit(10**9)
def down(x):
    return max([x], key=down)  # here
down(0)
""",
        Ends("ended with SIGSEGV", "SIGSEGV"),
    ),
    Case("abort", "os.abort()  # here", Ends("ended with SIGABRT", "SIGABRT", is_placed=True)),
]

LIMITS = [
    Case("memory", "bytearray(3 << 30)  # here", Raises("MemoryError")),
    Case(
        "memory-held",
        """
for size in (1 << 20, 1 << 12, 1):
    try:
        while True:
            held.append(bytes(size))
    except MemoryError:
        pass
bytes(1 << 20)  # here
""",
        OneOf([Raises("MemoryError"), Ends("ended with exit code 1", exit_code=1)]),
    ),
    Case(
        "descriptors",
        """
for _ in range(2000):
    held.append(open(os.devnull))  # here
""",
        OneOf([Works(), Raises("OSError")]),
    ),
    Case(
        "threads",
        """
for _ in range(500):
    threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()  # here
""",
        OneOf([Works(), Raises("RuntimeError")]),
    ),
    Case(
        "fork-bomb",
        """
for _ in range(50):
    if os.fork() == 0:
        time.sleep(10**6)
""",
        Works(),
        at_call=OneOf([Works(), Hangs()]),  # a fork of so large a process takes 10 to 100 ms
    ),
    Case(
        "orphan",
        """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 1000)
        while True:
            time.sleep(10**6)
    os._exit(0)
os.wait()
""",
        Works(),
    ),
]

CHANGES = [
    Case(
        "signals",
        """
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)  # here
""",
        Works(),
        at_call=Raises("ValueError"),  # Python's own rule: in the main thread only
    ),
    Case("blocked-signals", "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())", Works()),
    Case("chdir", "os.chdir('/')", Works()),
    Case("umask", "os.umask(0o777)", Works()),
    Case("switch-interval", "sys.setswitchinterval(1000)", Works()),
    Case("closed-descriptors", "os.closerange(0, 31)", Works()),
    Case(
        "patched-json",
        """
def broken(*given, **more):
    raise KeyError("patched")
json.dumps = json.loads = json.dump = json.load = broken
""",
        Works(),
    ),
    Case(
        "patched-socket",
        """
def broken(*given, **more):
    raise KeyError("patched")
for name in ("send", "sendall", "sendmsg", "recv", "recv_into", "recvmsg", "close", "fileno"):
    setattr(socket.socket, name, broken)
socket.socket = socket.socketpair = broken
""",
        Works(),
    ),
    Case("collector", "gc.disable()", Works()),
    Case("torch-threads", "import torch\ntorch.set_num_threads(1)", Works()),
]

NO_MESSAGE = Ends("was ended, because it sent what is no message")
NONSENSE = [
    Case("noise", PROTOCOL + "os.write(descriptor(), 64 * b'\\xff')\ntime.sleep(10**6)", NO_MESSAGE),
    Case("no-such-message", PROTOCOL + 'send({"kind": "nonsense"})\ntime.sleep(10**6)', NO_MESSAGE),
    Case("no-object", PROTOCOL + "send([[[]]])\ntime.sleep(10**6)", NO_MESSAGE),
    Case(
        "deep-message",
        PROTOCOL
        + """
data = b'{"kind": "done", "task": 1, "value": ' + 10**6 * b"["
os.write(descriptor(), struct.pack("!I", len(data)) + data)
time.sleep(10**6)
""",
        NO_MESSAGE,
    ),
    Case(
        "no-result",
        PROTOCOL
        + """
for task in range(100):
    send({"kind": "done", "task": task, "value": {"answer": 1}})
time.sleep(10**6)
""",
        Ends("was ended, because it sent what is no result"),
    ),
    Case(
        "no-value",
        PROTOCOL
        + """
send({"kind": "saved", "name": "x", "type": "y", "bytes": -1, "built": 0.0, "how": "saved", "draft": "../x"})
time.sleep(10**6)
""",
        NO_MESSAGE,
    ),
    Case(
        "many-calls",
        PROTOCOL
        + """
words = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 100, "stop": None, "schema": None}
for call in range(10**6, 10**6 + 500):
    send({"kind": "ask", "call": call, "task": None, "tool": None, "what": "complete", "given": words})
""",
        Works(),
    ),
    Case(
        "many-steps",
        """
from server.sdk import context
for _ in range(300):
    context.current().listener.step({"thought": 10**6 * "x"})
time.sleep(10**6)
""",
        Ends("was ended, because one run sent more than"),
        at_call=OneOf([Ends("was ended, because one run sent more than"), Hangs()]),
    ),
    Case("closed-connection", PROTOCOL + "os.close(descriptor())", Ends("ended with exit code 1", exit_code=1)),
]

CASES = [*HANGS, *ENDS, *LIMITS, *CHANGES, *NONSENSE]
assert len({case.name[:13] for case in CASES}) == len(CASES)
