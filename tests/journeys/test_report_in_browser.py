"""The report in a real headless browser: it opens from disk, sorts, filters, asks for nothing."""

import os
import shutil
from pathlib import Path

import pytest

from fl_shield.simulations.report import build_report
from tests.simulations.test_report import write_run

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


def browser() -> str:
    """Return the path of a browser on this machine, or skip."""
    installed = next(filter(None, map(shutil.which, BROWSERS)), "")
    found = os.environ.get("FL_SHIELD_CHROMIUM") or installed
    if not found:
        if os.environ.get("FL_SHIELD_REQUIRE_BROWSER"):
            pytest.fail("FL_SHIELD_REQUIRE_BROWSER is set, but there is no Chromium on the PATH.")
        pytest.skip("no Chromium on the PATH; set FL_SHIELD_CHROMIUM to one")
    return found


@pytest.mark.timeout(120)
def test_the_report_works_in_a_browser(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    path = build_report(write_run(tmp_path / "run"))
    errors: list[str] = []
    requests: list[str] = []
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=browser(), args=QUIET)
        page = chromium.new_page(viewport={"width": 1200, "height": 900})
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        assert "fl_shield" in page.title()
        rows = page.locator("#verdicts tbody tr")
        assert rows.count() == 4
        page.select_option("#filter-decision", "drop")
        assert rows.count() == 2
        page.fill("#filter-round", "1")
        assert rows.count() == 1
        assert "client 0" in rows.first.inner_text()
        page.fill("#filter-round", "")
        page.select_option("#filter-decision", "")
        heading = page.locator("#verdicts th button", has_text="round")
        heading.click()
        heading.click()
        assert rows.first.locator("td").first.inner_text() == "1"
        plots = page.locator("svg.plot")
        assert plots.count() >= 3
        for index in range(plots.count()):
            box = plots.nth(index).bounding_box()
            assert box is not None
            assert box["width"] > 200
            assert box["height"] > 100
        page.set_viewport_size({"width": 380, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        chromium.close()
    assert errors == []
    assert [url for url in requests if not url.startswith("file:")] == []
