"""The pages in Debian's Chromium: first paint, text as it comes, a long run; and what watching costs the model."""

import json
import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import Page, sync_playwright

from benchmarks.tables import milliseconds, p95, print_table
from server.runs import Run
from server.runs.record import record_of
from server.store import Database, RunStore
from server.web.pages import PAGES
from tests.support.server_process import REPOSITORY, Server, end, start

TOKENS_A_SECOND = 300
TEXT_BYTES = 200_000
STEPS = 30_000
DASHBOARDS = 50
QUESTION = "What is 37 * 52?"
LAG = """
() => {
  const seen = { lags: [], long: [] };
  globalThis.seen = seen;
  const note = (list) => list.getEntries().forEach((one) => seen.long.push(one.duration));
  new PerformanceObserver(note).observe({ type: "longtask" });
  const look = () => {
    const texts = document.querySelector("main").textContent.match(/@(\\d+)\\./g);
    if (texts && texts.length !== seen.count) {
      seen.count = texts.length;
      const sent = Number(texts.at(-1).slice(1, -1));
      requestAnimationFrame(() => seen.lags.push(Date.now() - sent));
    }
    setTimeout(look, 50);
  };
  look();
}
"""
"""Notes how old the last token is when it is shown, and tasks of more than 50 ms. It looks 20 times a second, since
reading 200 KB each time is work as well."""


def report(folder: Path, few: bool) -> None:
    """Print the tables."""
    program = shutil.which("chromium")
    assert program is not None, "There is no Chromium here: sudo apt install chromium"
    run = _add_long_run(folder / "server" / "data", 300 if few else STEPS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        server = start(folder / "server", REPOSITORY, {})
        try:
            server.wait_until_ready()
            page = browser.new_page()
            page.goto(f"{server.url}/?token={server.token}")
            _report_paint(page, server, 1 if few else 10)
            _report_long_run(page, server, run, 1 if few else 10)
            browser.close()
            _report_watching(server, 3 if few else DASHBOARDS, 2 if few else 10)
        finally:
            end(server)
        with _paced_model() as url:
            server = start(folder / "paced", REPOSITORY, {"MODEL": "openai:paced", "BASE_URL": url})
            try:
                server.wait_until_ready()
                _report_text(playwright.chromium.launch(executable_path=program, args=["--no-sandbox"]), server, few)
            finally:
                end(server)


def _report_paint(page: Page, server: Server, times: int) -> None:
    rows = []
    for one in PAGES:
        if "<" in one.at:
            continue
        painted = []
        for _ in range(times):
            page.goto(f"{server.url}/ui/{one.at}")
            page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length > 0")
            shown = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            painted.append(shown / 1000)
        rows.append([one.title, str(times), milliseconds(statistics.median(painted)), milliseconds(max(painted))])
    print_table(("page", "n", "first paint p50", "most"), rows)


def _add_long_run(data: Path, steps: int) -> str:
    """A run of so many steps, in the database of a server that has not started."""
    data.mkdir(parents=True)
    database = Database(data)
    run = Run("Follow each link", "main", steps)
    step = {"thought": "One more.", "tool": "look", "input": {"at": 1}, "observation": "x" * 500}
    run.steps = [{**step, "input": {"at": number}} for number in range(steps)]
    run.answer, run.state = {"answer": "done", "run_id": run.id, "steps": run.steps, "model": "embedded"}, "done"
    RunStore(database).add(record_of(run), "main")
    database.close()
    return run.id


def _report_long_run(page: Page, server: Server, run: str, times: int) -> None:
    opened, jumped = [], []
    for _ in range(times):
        began = time.perf_counter()
        page.goto(f"{server.url}/ui/runs/{run}", wait_until="commit")
        page.wait_for_function("() => document.querySelector('#steps .line strong')")
        page.wait_for_function("() => document.querySelector('#step h2')")
        opened.append(time.perf_counter() - began)
        began = time.perf_counter()
        page.locator("#steps").press("End")
        page.wait_for_function("() => document.querySelector('#step h2')?.textContent === 'Answer'")
        jumped.append(time.perf_counter() - began)
    rows = [
        [what, str(times), milliseconds(statistics.median(seconds)), milliseconds(max(seconds))]
        for what, seconds in (("open it, first step shown", opened), ("jump to its end", jumped))
    ]
    print_table(("a run of many steps", "n", "p50", "most"), rows)


def _report_watching(server: Server, dashboards: int, times: int) -> None:
    """Tokens a second of the same questions with and without viewers of the page Now, in turns."""
    figures: dict[int, list[float]] = {0: [], dashboards: []}
    for _ in range(times):
        for viewers, rates in figures.items():
            with _viewers(server, viewers):
                rates.append(_rate(server))
    base = statistics.median(figures[0])
    rows = [
        [
            str(viewers),
            str(times),
            f"{statistics.median(rates):,.0f}",
            f"{100 * (statistics.median(rates) / base - 1):+.1f} %",
        ]
        for viewers, rates in figures.items()
    ]
    print_table(("viewers of Now", "n", "tokens/s p50", "difference"), rows)


@contextmanager
def _viewers(server: Server, count: int) -> Iterator[None]:
    """So many connections that follow the load, each read by a thread."""
    streams = []
    for _ in range(count):
        answer = server.session.get("/events", params={"follow": "1:0:load"}, stream=True)
        assert answer.status_code == 200, answer.text
        streams.append(answer)

    def read(answer: requests.Response) -> None:
        try:
            for _ in answer.iter_content(4096):
                pass
        except (requests.RequestException, AttributeError, ValueError):
            return  # it was closed

    threads = [threading.Thread(target=read, args=(answer,), daemon=True) for answer in streams]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for answer in streams:
            answer.close()


def _rate(server: Server) -> float:
    """Tokens a second of eight people who ask at once."""
    tokens, counting = [0], threading.Lock()

    def ask() -> None:
        for _ in range(10):
            usage = server.session.post("/run_script", json={"question": QUESTION}).json()["usage"]
            with counting:
                tokens[0] += usage["completion_tokens"] + usage["forced_tokens"]

    threads = [threading.Thread(target=ask) for _ in range(8)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tokens[0] / (time.perf_counter() - began)


@contextmanager
def _paced_model() -> Iterator[str]:
    """The address of OpenAI's API with a model that writes `TOKENS_A_SECOND` tokens, each with the time."""

    class Api(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if asked.get("stream") else "application/json")
            self.send_header("Connection", "close")
            self.end_headers()
            if not asked.get("stream"):
                message = {"role": "assistant", "content": "{}"}
                self.wfile.write(json.dumps({**_head(), "choices": [{"index": 0, "message": message}]}).encode())
                return
            began, written = time.monotonic(), 0
            for number in range(10**9):
                text = f"@{time.time() * 1000:.0f}. "
                written += len(text)
                if written > TEXT_BYTES:
                    break
                self._send({"content": text})
                time.sleep(max(0.0, began + number / TOKENS_A_SECOND - time.monotonic()))
            self._send({}, "stop")
            self.wfile.write(b"data: [DONE]\n\n")

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:  # the server has stopped reading
                self.close_connection = True

        def _send(self, delta: dict[str, Any], finish: str | None = None) -> None:
            chunk = {**_head(), "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    api = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{api.server_address[1]}/v1"
    finally:
        api.shutdown()


def _head() -> dict[str, Any]:
    return {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "paced"}


def _report_text(browser: Any, server: Server, few: bool) -> None:
    page = browser.new_page()
    page.goto(f"{server.url}/?token={server.token}")
    page.goto(f"{server.url}/ui/ask")
    page.evaluate(LAG)
    page.get_by_label("Agent").select_option("chat")
    page.get_by_role("textbox").first.fill("Write.")
    page.get_by_role("button", name="Ask", exact=True).click()
    if few:
        page.wait_for_function("() => globalThis.seen.lags.length > 20")
    else:
        page.wait_for_function("() => globalThis.seen.lags.length > 20", timeout=120_000)
        page.get_by_role("button", name="Stop").wait_for(state="hidden", timeout=300_000)
    seen = page.evaluate("globalThis.seen")
    lags = [one / 1000 for one in seen["lags"]]
    rows = [
        [
            str(len(lags)),
            milliseconds(statistics.median(lags)),
            milliseconds(p95(lags)),
            milliseconds(max(lags)),
            str(len(seen["long"])),
            milliseconds(max(seen["long"], default=0.0) / 1000),
        ]
    ]
    print_table(("n", "a token is shown after p50", "p95", "most", "tasks over 50 ms", "longest"), rows)
    browser.close()
