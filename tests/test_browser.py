"""The comparison's page in a real browser: drawn, usable, silent, asking nobody, and accessible."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from orchestrator import comparison
from orchestrator.recipe import Tracking
from tests.compared import converged, run_with, with_spectra

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs")
    for number, name in enumerate(("plain", "robust", "third")):
        run = run_with(folder / name, range(20 - 8 * number), seed=number)
        converged(run, 2, [0.1 * number, 0.2, 0.3])
        with_spectra(run, fc=[2.0, 1.0 + number])
    made = comparison.compare(["plain", "robust", "third"], Tracking(folder=str(folder)))
    comparison.write_page(made, folder / "page.html")
    return (folder / "page.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        options = ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[*options, "--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    """The page, with whatever it said and asked for."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    page.wait_for_selector(".main-svg")
    yield page
    page.close()


def becomes(page: Any, condition: str) -> bool:
    """Whether a condition of the page comes true within some seconds. The page itself may evaluate no text."""
    for _ in range(100):
        if page.evaluate(condition):
            return True
        page.wait_for_timeout(100)
    return False


def test_charts_are_drawn_without_a_word_or_a_request(opened: Any, address: str) -> None:
    assert opened.locator("[data-figure]").count() == opened.locator("[data-figure] .plot-container").count() == 8
    assert opened.locator("[data-figure]").first.locator(".scatterlayer .trace").count() == 3
    assert opened.said == []
    assert [url for url in opened.asked if url != address and not url.startswith(("data:", "blob:"))] == []


def test_a_click_in_a_legend_hides_a_line(opened: Any) -> None:
    chart = opened.locator("[data-figure]").first
    chart.locator(".legendtoggle").first.click()
    assert becomes(opened, "document.querySelector('[data-figure]').data[0].visible === 'legendonly'")


def test_the_numbers_are_behind_each_chart(opened: Any) -> None:
    details = opened.locator("details").first
    assert not details.locator("table").is_visible()
    details.locator("summary").click()
    assert details.locator("table").is_visible()


def test_dark_and_light_have_their_own_colours(opened: Any) -> None:
    ink = "getComputedStyle(document.querySelector('.xtick text')).fill"
    opened.emulate_media(color_scheme="light")
    light = opened.evaluate(ink)
    opened.emulate_media(color_scheme="dark")
    assert becomes(opened, f"{ink} !== '{light}'")


def test_a_phone_scrolls_down_only(opened: Any) -> None:
    opened.set_viewport_size({"width": 375, "height": 700})
    opened.wait_for_timeout(300)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 375


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened: Any, scheme: str) -> None:
    opened.emulate_media(color_scheme=scheme)
    found = Axe().run(opened).response["violations"]
    serious = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    assert serious == []
