"""The page in a real browser, used as a person would. Run with `make test-browser`."""

import json
import zipfile

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
def open_page(browser, address):
    """Opens a page; at the end no page may have had an error or a dialog."""
    errors, pages = [], []

    def opened():
        page = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        pages.append(page)
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.goto(address)
        page.wait_for_selector("#find")
        return page

    yield opened
    for page in pages:
        page.close()
    assert errors == []


@pytest.fixture
def page(open_page):
    return open_page()


def says(page, place: str, text: str) -> str:
    page.wait_for_function(
        "([place, text]) => document.querySelector(place).innerText.includes(text)", arg=[place, text]
    )
    return page.inner_text(place)


def wait_for_picture(page) -> None:
    page.wait_for_selector("#region img[src^=data]")


def wait_for_another_region(page, before: str) -> None:
    page.wait_for_function("old => document.querySelector('#region img').src !== old", arg=before)


def region_picture(page) -> str:
    return page.get_attribute("#region img", "src")


def prepare(page, file="circle.png", text=TEXT) -> None:
    page.set_input_files("#picture input[type=file]", str(EXAMPLES / file))
    wait_for_picture(page)
    page.fill("#instruction textarea", text)


def open_mask_file(page, path) -> None:
    with page.expect_file_chooser() as chooser:
        page.click("#mask-file")
    chooser.value.set_files(str(path))


def find(page) -> str:
    page.click("#find")
    return says(page, "#region-line", "found by")


def drag(page, *points) -> None:
    """Drag the mouse along points, given as shares of the picture's width and height."""
    before = region_picture(page)
    box = page.locator("#region canvas").bounding_box()
    (x, y), *rest = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in points]
    page.mouse.move(x, y)
    page.mouse.down()
    for x, y in rest:
        page.mouse.move(x, y, steps=4)
    page.mouse.up()
    wait_for_another_region(page, before)


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def unfold(page, title: str) -> None:
    page.get_by_text(title, exact=True).click()


def set_number(page, place: str, value: str) -> None:
    """Enter a number. Gradio resets a field that is filled within milliseconds after its accordion was opened."""
    field = page.locator(f"{place} input[type=number]")
    for _ in range(20):
        field.fill(value)
        field.press("Enter")
        page.wait_for_timeout(500)
        if field.input_value() == value:
            return
    raise AssertionError(f"{place} does not keep {value}")


def edit(page) -> str:
    page.click("#edit")
    return says(page, "#status", "outside the region")


def download(page, button: str, path):
    with page.expect_download() as waiting:
        page.click(button)
    waiting.value.save_as(path)
    return path


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_corrected_edit_is_downloaded_and_a_dropped_download_reproduces_it(page, open_page, tmp_path):
    prepare(page)
    assert "found by learned" in find(page)
    drag(page, (0.1, 0.1), (0.4, 0.1))
    unfold(page, "Settings")
    page.fill("#seed input", "41")
    assert "0 pixels changed outside the region" in edit(page)
    first = download(page, "#download", tmp_path / "first.png")
    record = json.loads(Image.open(first).info["regionedit.run.json"])
    assert record["mask_source"] == "drawn" and record["picture"]["path"] == "circle.png"
    changed = (pixels(EXAMPLES / "circle.png") != pixels(first)).any(-1)
    assert changed[6, 15] or changed[6, 12]  # where the brush went
    assert changed.any() and not changed[:, 44:].any()  # the triangle

    another = open_page()
    prepare(another, text="")
    tab(another, "History")
    another.set_input_files("#reproduce input[type=file]", str(first))
    says(another, "#region-line", "restored from the file")
    assert another.input_value("#instruction textarea") == TEXT
    edit(another)
    again = download(another, "#download", tmp_path / "again.png")
    assert np.array_equal(pixels(first), pixels(again))


DRAWN = """async () => {
    const canvas = document.createElement('canvas'); canvas.width = canvas.height = 64;
    const pen = canvas.getContext('2d'); pen.fillStyle = '#fff'; pen.fillRect(0, 0, 64, 64);
    const blob = await new Promise(done => canvas.toBlob(done, 'image/png'));
    %s
}"""


def test_a_picture_is_pasted(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(DRAWN % "await navigator.clipboard.write([new ClipboardItem({'image/png': blob})]);")
    page.click("#picture button[aria-label='Paste from clipboard']")
    wait_for_picture(page)


def test_a_picture_is_dropped(page):
    page.evaluate(
        DRAWN
        % """const given = new DataTransfer(); given.items.add(new File([blob], 'drawn.png', {type: 'image/png'}));
    const place = document.querySelector('#picture input[type=file]').closest('button');
    for (const kind of ['dragenter', 'dragover', 'drop'])
        place.dispatchEvent(new DragEvent(kind, {dataTransfer: given, bubbles: true, cancelable: true}));"""
    )
    wait_for_picture(page)


def test_a_picture_is_taken_with_the_camera(page):
    page.context.grant_permissions(["camera"])
    page.click("#picture button[aria-label='Capture from camera']")
    page.click("#picture [title='grant webcam access'], #picture button:has-text('Click to Access Webcam')")
    # Wait until the camera's preview runs, as a person would.
    page.wait_for_function("document.querySelector('#picture video')?.currentTime > 0.3")
    page.click("#picture button[aria-label='capture photo']")
    wait_for_picture(page)


def test_sliders_change_the_region_without_a_new_search(page):
    prepare(page)
    share = find(page)
    before = region_picture(page)
    set_number(page, "#threshold", "0.9")
    wait_for_another_region(page, before)
    assert page.inner_text("#region-line") != share


def test_a_mask_file_is_understood_changed_and_edited(page, tmp_path):
    prepare(page)
    hole = Image.open(EXAMPLES / "circle.png").convert("RGBA")
    hole.paste((0, 0, 0, 0), (10, 12, 30, 40))
    hole.paste((9, 9, 9, 255), (16, 18, 20, 24))
    hole.save(tmp_path / "hole.png")
    open_mask_file(page, tmp_path / "hole.png")
    assert "13.1%" in says(page, "#region-line", "mask: the transparent hole is edited")
    assert page.input_value("#grow input[type=number]") == "0", "a file is not grown"
    before = region_picture(page)
    page.click("#operation-fill")
    wait_for_another_region(page, before)
    assert "13.7%" in says(page, "#region-line", "13.7%")
    assert "0 pixels changed outside" in edit(page) and "transparent hole" in page.inner_text("#status")
    Image.open(EXAMPLES / "circle.png").save(tmp_path / "no mask.png")
    open_mask_file(page, tmp_path / "no mask.png")
    page.get_by_text("mask 'no mask.png'", exact=False).first.wait_for()


def test_a_tap_selects_the_whole_object(page):
    prepare(page)
    page.click("#region [data-tool=take]")
    box = page.locator("#region canvas").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.31, box["y"] + box["height"] * 0.6)
    says(page, "#region-line", "will be edited")
    page.click("#region [data-do=undo]")
    says(page, "#region-line", "No region yet")


def test_edit_alone_finds_the_region_first(page):
    page.locator("#examples img").first.click()
    wait_for_picture(page)
    assert "0 pixels changed outside" in edit(page)
    assert "found by learned" in page.inner_text("#region-line")


def test_an_edit_can_be_cancelled(page):
    prepare(page)
    find(page)
    unfold(page, "Settings")
    set_number(page, "#steps", "100")
    page.click("#edit")
    says(page, "#status", "step ")
    page.click("#cancel")
    says(page, "#status", "Cancelled")
    page.wait_for_selector("#edit:visible")
    set_number(page, "#steps", "2")
    assert "0 pixels changed outside" in edit(page)


def test_one_of_several_variants_is_chosen_and_the_session_remembers_it(page, tmp_path):
    prepare(page)
    unfold(page, "Settings")
    set_number(page, "#variants-wanted", "2")
    edit(page)
    page.wait_for_selector("#variants img")
    page.locator("#variants button:has(img)").nth(1).click()
    unfold(page, "How it was made")
    page.wait_for_function("document.querySelector('#details')?.innerText.replace(/\\s/g, '').includes('seed\":1,')")
    chosen = download(page, "#download", tmp_path / "second.png")
    assert json.loads(Image.open(chosen).info["regionedit.run.json"])["seed"] == 1
    tab(page, "History")
    page.locator("#history img").first.click()
    page.wait_for_selector("#history-restore:not([disabled])")
    page.click("#history-restore")
    says(page, "#status", "All settings are restored")


def test_a_batch_by_a_list(page, tmp_path):
    tab(page, "Batch")
    files = [str(EXAMPLES / name) for name in ("ring.png", "square.png", "requests.jsonl", "circle.png", "cross.png")]
    page.set_input_files("#batch-files input[type=file]", files)
    page.wait_for_selector("#batch-files .file-preview")
    page.click("#batch-run")
    says(page, "#batch-status", "4 of 4")
    page.wait_for_selector("#batch-download:not([disabled])")
    with zipfile.ZipFile(download(page, "#batch-download", tmp_path / "all.zip")) as archive:
        assert {"ring/result.png", "ring/mask.png", "ring/run.json", "contact_sheet.png"} <= set(archive.namelist())
    page.click("#batch-run")
    says(page, "#batch-status", "4 finished before")


def test_systems_are_compared(page):
    prepare(page)
    tab(page, "Compare")
    page.click("#compare-run")
    says(page, "#compare-status", "2 of 2")
    page.wait_for_selector("#compare-picture img")
    assert "learned" in page.inner_text("#compare-table") and "no region" in page.inner_text("#compare-table")
    page.wait_for_selector("#compare-study:not([disabled])")


def test_a_corrupt_upload_gives_a_one_sentence_error(page, tmp_path):
    bad = tmp_path / "broken.png"
    bad.write_bytes((EXAMPLES / "circle.png").read_bytes()[:900])
    page.set_input_files("#picture input[type=file]", str(bad))
    page.wait_for_selector(".toast-body")
    said = page.inner_text(".toast-body")
    assert "broken.png" in said and "Traceback" not in said and str(tmp_path) not in said


def test_script_tags_are_shown_as_text(page):
    prepare(page, text="<script>alert(1)</script><img src=x onerror=alert(2)>")
    edit(page)  # any sentence is accepted, also one that is no instruction
    unfold(page, "How it was made")
    page.wait_for_selector("#details")
    assert "<script>alert(1)</script>" in page.inner_text("#details")
    page.wait_for_timeout(500)  # time for an alert to appear, which the fixture would count as an error


def test_two_tabs_do_not_see_each_other(page, open_page):
    another = open_page()
    prepare(page)
    prepare(another, "square.png", "make the blue square red")
    page.click("#edit")
    another.click("#edit")
    for one, name in ((page, "circle.png"), (another, "square.png")):
        says(one, "#status", "outside the region")
        unfold(one, "How it was made")
        one.wait_for_selector("#details")
        assert name in one.inner_text("#details")
