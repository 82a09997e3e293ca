"""What a server of OpenAI's API supports, as a table: `python -m tests.support.openai_support URL MODEL`.

A second pair adds a column. Runs tests/integration/test_openai_clients.py against each."""

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).with_name("test_openai_clients.py")


class Outcomes:
    """Collects what comes of each test, by the first line of what it says."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._titles: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        self._titles = {item.nodeid: (item.function.__doc__ or item.name).partition("\n")[0] for item in items}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed:
            refused = hasattr(report, "wasxfail")
            self.found[self._titles[report.nodeid]] = "yes" if report.passed else report.wasxfail if refused else "no"


def main(arguments: list[str]) -> None:
    """Print the table."""
    columns = []
    for url, model in zip(arguments[::2], arguments[1::2], strict=True):
        os.environ |= {"OPENAI_TEST_URL": url, "OPENAI_TEST_MODEL": model}
        outcomes = Outcomes()
        pytest.main([str(TESTS), "-q", "-p", "no:cacheprovider"], plugins=[outcomes])
        columns.append(outcomes.found)
    print()
    for title in columns[0]:
        print("|", " | ".join([title, *(column[title] for column in columns)]), "|")


if __name__ == "__main__":
    main(sys.argv[1:])
