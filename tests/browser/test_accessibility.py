"""Every page by axe's rules: https://github.com/dequelabs/axe-core"""

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from server.web.pages import PAGES

OF_ITS_OWN = [page for page in PAGES if "<" not in page.at]
GRAVE = ("serious", "critical")


def faults(page: Page) -> list[str]:
    """What axe finds serious or critical, with the element."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:200]}"
        for one in found
        if one["impact"] in GRAVE
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("shown", OF_ITS_OWN, ids=lambda page: page.name)
def test_axe_finds_nothing_serious(visit: Callable[..., Page], shown: Any) -> None:
    for dark in (False, True):
        page = visit(f"/ui/{shown.at}", dark=dark)
        expect(page.locator("h1")).to_be_visible()
        if not shown.is_open:
            expect(page.locator("#model-state")).to_contain_text("embedded")
        assert not faults(page)
