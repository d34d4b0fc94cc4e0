"""Annotations: agreement by hand, answers that survive, a server for its own page only, a session by keyboard."""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from orchestrator.annotation.results import agreement, fleiss_kappa, metrics, minds
from orchestrator.annotation.server import app_for
from orchestrator.annotation.sheet import UNSURE, Answer, Sheet

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
COUNT = 30


@pytest.fixture
def sheet(tmp_path: Path) -> Sheet:
    """Thirty images; image i is of class i mod 3, and the model takes it for the next class."""
    index = np.arange(100, 100 + COUNT)
    images = np.random.default_rng(0).random((COUNT, 1, 8, 8), np.float32)
    return Sheet(tmp_path, ("zero", "one", "two"), index, images, index % 3, (index + 1) % 3)


def test_fleiss_kappa_of_his_own_example() -> None:
    """Fleiss 1971, table 1: 30 patients, 6 psychiatrists, 5 diagnoses; here the worked example of 10 subjects."""
    counts = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    assert fleiss_kappa(np.array(counts)) == pytest.approx(0.2099, abs=1e-4)


def test_kappa_at_its_ends() -> None:
    assert fleiss_kappa(np.array([[2, 0], [0, 2]])) == 1.0
    assert fleiss_kappa(np.array([[1, 1], [1, 1]])) == pytest.approx(-1.0)
    assert fleiss_kappa(np.array([[2, 0], [2, 0]])) == 1.0


def test_changed_unchanged_and_unsure_are_counted(sheet: Sheet) -> None:
    for index, answer in ((100, 100 % 3), (101, (101 + 1) % 3), (102, UNSURE), (103, (103 + 2) % 3)):
        sheet.give("ann", Answer(index, answer, 1.0))
    ann, together = minds(sheet)
    assert (ann.who, ann.answers, together.answers) == ("ann", 4, 4)
    assert [share.value for share in (ann.changed, ann.unchanged, ann.unsure) if share] == [0.25, 0.25, 0.25]
    assert math.isnan(agreement(sheet))
    assert "annotation/agreement" not in metrics(sheet)


def test_two_annotators_who_agree(sheet: Sheet) -> None:
    for who in ("ann", "bob"):
        for index in range(100, 106):
            sheet.give(who, Answer(index, index % 3, 1.0))
    assert agreement(sheet) == 1.0
    assert metrics(sheet)["annotation/unchanged"] == 1.0


def test_answers_are_kept_and_corrected(sheet: Sheet) -> None:
    sheet.give("ann", Answer(100, 1, 0.5))
    sheet.give("ann", Answer(100, 2, 0.7))
    again = Sheet(sheet.folder, sheet.classes, sheet.index, sheet.images, sheet.label, sheet.adversarial)
    assert again.answers("ann") == {100: Answer(100, 2, 0.7)}
    assert again.annotators() == ["ann"]


@pytest.mark.parametrize(
    ("who", "index", "answer", "said"),
    [("ann", 7, 0, "index"), ("ann", 100, 3, "answer"), ("ann", 100, -2, "answer"), ("../ann", 100, 0, "annotator")],
)
def test_what_is_no_answer_is_refused(sheet: Sheet, who: str, index: int, answer: int, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}: "):
        sheet.give(who, Answer(index, answer, 0.0))
    assert sheet.annotators() == []


def test_everybody_has_an_order_of_their_own(sheet: Sheet) -> None:
    assert sheet.order("ann") == sheet.order("ann") != sheet.order("bob")
    assert sorted(sheet.order("ann")) == list(range(COUNT))


@pytest.fixture
def address(sheet: Sheet) -> Iterator[str]:
    """A real server on a free port."""
    server = uvicorn.Server(uvicorn.Config(app_for(sheet, ["127.0.0.1"]), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=10)


def test_the_server_answers_its_own_page_only(address: str) -> None:
    first = requests.get(f"{address}/images", params={"annotator": "ann"}, timeout=20).json()
    assert len(first["images"]) == 25
    assert set(first["images"][0]) == {"index", "image"}  # no label
    given = {"annotator": "ann", "index": first["images"][0]["index"], "answer": 1, "seconds": 0.1}
    answers = f"{address}/answers"
    assert requests.post(answers, json=given, timeout=20).json() == {"answered": 1}
    assert requests.post(answers, json=given | {"answer": 9}, timeout=20).status_code == 422
    assert requests.post(answers, data=given, timeout=20).status_code == 422  # a form of another site
    assert requests.get(address, headers={"Host": "elsewhere.example"}, timeout=20).status_code == 400
    assert requests.get(f"{address}/images", params={"annotator": "../x"}, timeout=20).status_code == 422


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
def test_a_session_from_the_first_to_the_last_key(sheet: Sheet, address: str) -> None:
    said: list[str] = []
    asked: list[str] = []
    with sync_playwright() as playwright:
        options = ["--disable-gpu", "--disable-background-networking", "--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.keyboard.type("ann")
        page.keyboard.press("Enter")
        page.locator("#progress", has_text=f"0 of {COUNT} answered").wait_for()
        for number in range(COUNT):
            press(page, "?" if number == 3 else str(number % 3), number + 1)
            if number == 10:
                page.keyboard.press("Backspace")
                press(page, "2", number + 1)
        assert "Thank you" in page.locator("#progress").inner_text()
        serious: Any = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
        browser.close()
    assert serious == []
    assert said == []
    assert all(url.startswith((address, "data:")) for url in asked)
    answers = list(sheet.answers("ann").values())
    assert [one.answer for one in answers][:4] == [0, 1, 2, UNSURE]
    assert answers[10].answer == 2
    assert [one.index for one in answers] == [int(sheet.index[place]) for place in sheet.order("ann")]


def press(page: Any, key: str, answered: int) -> None:
    """Presses a key and waits until the page says that so many images are answered."""
    page.keyboard.press(key)
    text = f"All {answered}" if answered == COUNT else f"{answered} of {COUNT} answered"
    page.locator("#progress", has_text=text).wait_for(timeout=20000)
    page.wait_for_timeout(20)
