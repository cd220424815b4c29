"""The page as a person meets it, in a real browser. `make test-browser`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.browser import PATIENCE, ROOT, chromium, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLES = ROOT / "docs" / "examples"
TEXT = "replace the yellow circle with a green square"


@pytest.fixture(scope="module")
def address():
    with served() as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page.set_default_timeout(PATIENCE)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.goto(address)
    page.wait_for_selector("#find")
    yield page
    page.close()
    assert errors == []


def says(page, place: str, text: str) -> str:
    page.wait_for_function(
        "([place, text]) => document.querySelector(place).innerText.includes(text)", arg=[place, text]
    )
    return page.inner_text(place)


def region_picture(page) -> str:
    return page.get_attribute("#region img", "src")


def upload(page, file=EXAMPLES / "circle.png") -> None:
    page.set_input_files("#picture input[type=file]", str(file))
    page.wait_for_selector("#region img[src^=data]")


def write(page, text: str) -> None:
    page.fill("#instruction textarea", text)


def find(page) -> str:
    page.click("#find")
    return says(page, "#region-line", "found by")


def drag(page, *points) -> None:
    """Along points given as shares of the picture's width and height."""
    before = region_picture(page)
    box = page.locator("#region canvas").bounding_box()
    (x, y), *rest = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in points]
    page.mouse.move(x, y)
    page.mouse.down()
    for x, y in rest:
        page.mouse.move(x, y, steps=4)
    page.mouse.up()
    page.wait_for_function("old => document.querySelector('#region img').src !== old", arg=before)


def edit(page) -> str:
    page.click("#edit")
    return says(page, "#status", "outside the region")


def download(page, path):
    with page.expect_download() as waiting:
        page.click("#download")
    waiting.value.save_as(path)
    return path


def toast(page) -> str:
    page.wait_for_selector(".toast-body")
    return page.inner_text(".toast-body")


def test_find_correct_edit_and_download(page, tmp_path):
    upload(page)
    write(page, TEXT)
    assert "found by learned" in find(page)
    page.get_by_text("Settings", exact=True).click()
    assert page.input_value("#target-caption >> textarea, input").startswith("a green square")
    drag(page, (0.1, 0.1), (0.4, 0.1))
    assert "0 pixels changed outside the region" in edit(page)
    path = download(page, tmp_path / "edited.png")
    source, edited = (np.asarray(Image.open(p).convert("RGB")) for p in (EXAMPLES / "circle.png", path))
    carried = Image.open(path).info
    record = json.loads(carried["regionedit.run.json"])
    assert record["mask_source"] == "drawn" and record["picture"]["path"] == "circle.png"
    changed = (source != edited).any(-1)
    assert changed[26, 60] or changed[26, 50]  # where it was painted
    assert changed.any() and not changed[:, 160:].any()  # the triangle
