"""Programs that send the page's API what it must not trust: one sentence, without markup or a folder of the server."""

import base64
import io
import json

import gradio as gr
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from regionedit.command_line import load_config, one_line
from regionedit.config import AppConfig
from regionedit.images import png as png_of
from regionedit.web.handlers import UNEXPECTED
from regionedit.web.result_file import MASK, RECORD
from tests.endpoints import endpoints
from tests.hostile_files import GOOD, enormous, unreadable

TEXT, LONG = "make the ring blue", "x" * 10_000
NAN, INF = float("nan"), float("inf")
FILES = [None, 3, "x", True, [], {}, {"path": None}, {"path": 3}, {"path": []}, {"path": ""}, {"path": "."},
         {"path": "/"}, {"path": "/etc/passwd"}, {"path": "../../etc/passwd"}, {"path": "good.png"},
         {"path": "{folder}"}, {"path": LONG},
         {"path": "{folder}/../../../../etc/passwd"}, {"path": "{folder}/link.png"},
         {"path": "{folder}/a\0b"},
         {"path": "{folder}/none.png"}, {"path": "https://example.com/x.png"}, {"path": "file:///etc/passwd"},
         {"path": "{folder}/\ud800"}, {"url": "http://169.254.169.254/"}, {"path": "/proc/self/environ"}]  # fmt: skip
BROKEN = ["empty", "markup", "an SVG", "a program", "a pickle", "PNG, 40% of it", "a text chunk that grows",
          "an EPS that runs a command"]  # fmt: skip
TEXTS = [None, 3, [], {}, True, "", "  ", LONG, ";" * 5000, "x;" * 20, "a\0b", "half \ud83d", "y" * 1500]
GOOD_FILE = {"path": "{folder}/good.png", "orig_name": "good.png"}
CALLS = [
    *(("edit", file, TEXT) for file in FILES),
    *(("find_region", file, TEXT) for file in FILES[:8]),
    *(("reproduce", GOOD_FILE, file) for file in FILES),
    *(("layers", GOOD_FILE, file) for file in FILES[:8]),
    *(("edit", {"path": "{folder}/" + name, "orig_name": "../../" + name}, TEXT) for name in (*BROKEN, "bomb")),
    *(("edit", GOOD_FILE, TEXT, 0, 0, 0.0, "", {"path": "{folder}/" + name}) for name in (*BROKEN, "bomb")),
    *(("edit", GOOD_FILE, text) for text in TEXTS),
    *(("find_region", GOOD_FILE, text) for text in TEXTS),
    *(("edit", GOOD_FILE, TEXT, seed) for seed in (None, -1, 2**32, 10**30, NAN, INF, "3", "x", [], {}, 1e300)),
    *(("edit", GOOD_FILE, TEXT, 0, steps) for steps in (-1, 101, 10**9, NAN, INF, "x", [5], {"a": 1})),
    *(("edit", GOOD_FILE, TEXT, 0, 0, scale) for scale in (-1, 31, NAN, INF, "x", [5])),
    *(("edit", GOOD_FILE, TEXT, 0, 0, 0.0, caption) for caption in (None, 3, [], LONG, "a\0b", "\ud800")),
    *(("edit", GOOD_FILE, TEXT, 0, 0, 0.0, "", file) for file in FILES[1:]),
    *(("edit", GOOD_FILE, TEXT, 0, 0, 0.0, "", GOOD_FILE, *more) for more in (
        ("x",), (None,), (3,), ([],), ("auto", "maybe"), ("auto", 3), ("auto", [1]), ("auto", "", "#12"),
        ("auto", "", LONG), ("auto", "", [3]), ("luma", "", "", "explode"), ("luma", "", "", 3), ("luma", "", "", [[]]),
        ("luma", "", "", "fill;box"),
    )),
    ("edit", GOOD_FILE, TEXT, 0, 0, 0.0, "", None, "luma"),
    *(("compare", GOOD_FILE, TEXT, *names)
      for names in (([], []), (["evil"], []), ([], ["../x"]), (3, []), (None, None))),
    *(("batch", files, TEXT)
      for files in ([], None, 3, "x", [None], [3], [GOOD_FILE] * 2, [GOOD_FILE] * 501, FILES[:3])),
    *(("batch", [GOOD_FILE | {"orig_name": name}], TEXT) for name in (
        "x.exe", "x", "..", "a/..", LONG + ".png", "\0.png", ".uploads.json", 3, "\ud800.png")),
    *(("batch", [GOOD_FILE], text) for text in (LONG, ";" * 5000, 3, [], "a\0b")),
    *(("batch", [GOOD_FILE, {"path": "{folder}/" + name, "orig_name": name}]) for name in
      ("up.jsonl", "root.jsonl", "deep.jsonl", "broken.csv", "none.jsonl", "two.csv")),
]  # fmt: skip


def result(record: str, mask: bytes = b"") -> bytes:
    chunks = PngInfo()
    chunks.add_text(RECORD, record)
    chunks.add_text(MASK, base64.b64encode(mask or png_of(Image.new("L", GOOD.size))).decode())
    file = io.BytesIO()
    GOOD.save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


RESULTS = {
    "no JSON": result("{"), "a list": result("[]"), "a number": result("3"), "nothing": result("{}"),
    "deep": result("[" * 50_000), "wrong types": result('{"settings": 3, "captions": [], "instructions": {}}'),
    "null": result('{"settings": {"generator": null}, "captions": null, "instructions": null}'),
    "no source": result(json.dumps({"settings": {"generator": {"guidance_scale": 1}}, "captions": None, "seed": 1,
                                    "instructions": [{"text": "<b>", "strength": 1}], "id": "../../x"})),
    "another source": result(json.dumps({"settings": {"generator": {"guidance_scale": 1}}, "captions": None, "seed": 1,
                                         "instructions": [{"text": "x", "strength": 1}], "id": "x",
                                         "picture": {"sha256": "0", "path": "<img src=x onerror=alert(1)>"}})),
    "a mask that is none": result("{}", b"<script>"),
    "a mask of another size": result("{}", png_of(Image.new("L", (9, 9)))),
    "a mask that is a bomb": result("{}", enormous()["PNG 60,000 x 60,000"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Name -> endpoint, and the folder of uploads."""
    folder = tmp_path_factory.mktemp("served")
    files = unreadable() | {"bomb": enormous()["PNG 60,000 x 60,000"], "good.png": png_of(GOOD)}
    rows = {"up.jsonl": "../good.png", "root.jsonl": "/etc/passwd", "none.jsonl": "none.png"}
    files |= {name: json.dumps({"image": image, "instruction": "x"}).encode() for name, image in rows.items()}
    files |= {"deep.jsonl": b"[" * 100_000, "broken.csv": b'image,instruction\n"good.png', "two.csv": b"image\n1,2,3"}
    for name in (*BROKEN, "bomb", "good.png", *rows, "deep.jsonl", "broken.csv", "two.csv"):
        (folder / name).write_bytes(files[name])
    (folder / "link.png").symlink_to("/etc/passwd")
    with pytest.MonkeyPatch.context() as patch:
        config = load_config(AppConfig, "configs/edit_microworld.yaml", ["--device=cpu", "--max_pixels=1000000"])
        studio, made = endpoints(config, folder, patch)
        patch.setattr(studio.editor.models, "generator", lambda config: pytest.fail("a generator was loaded"))
        yield made, folder


def filled(value, folder):
    if isinstance(value, str):
        return value.replace("{folder}", str(folder))
    if isinstance(value, list | tuple):
        return type(value)(filled(one, folder) for one in value)
    return {key: filled(one, folder) for key, one in value.items()} if isinstance(value, dict) else value


def refusal(server, name: str, *given) -> str:
    made, folder = server
    with pytest.raises(gr.Error) as refused:
        next(made[name](*filled(given, folder)))
    sentence = str(refused.value.message)
    assert sentence != UNEXPECTED and sentence == one_line(sentence) and 5 < len(sentence) <= 600, sentence
    assert str(folder) not in sentence and "<" not in sentence, sentence
    return sentence


@pytest.mark.parametrize("call", CALLS, ids=lambda call: ascii(call)[:70])
def test_a_call_is_refused_in_one_sentence(call, server):
    refusal(server, *call)


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("endpoint", ["reproduce", "layers"])
def test_a_forged_result_is_refused(name, endpoint, server):
    (server[1] / "result.png").write_bytes(RESULTS[name])
    refusal(server, endpoint, GOOD_FILE, {"path": "{folder}/result.png"})
