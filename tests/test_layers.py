"""A result as layers: laid over each other, they show the result bit for bit, in every mode and depth."""

import io
import json
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from stored_pictures import KINDS, store

from regionedit import provenance
from regionedit.editor import Editor
from regionedit.originals import open_source, pixels_of
from regionedit.records import Captions, EditRequest
from regionedit.result_files import layer_png, open_raster
from tests.endpoints import endpoints
from tests.test_infer import RESULT, files, photo
from tests.test_originals import painted, random_mask


def rgba(data: bytes, folder) -> np.ndarray:
    """The stored pixels of a PNG, in [0, 1], with four channels."""
    (folder / "part.png").write_bytes(data)
    pixels = pixels_of(open_source(folder / "part.png"))
    pixels = pixels / np.iinfo(pixels.dtype).max
    colours = pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., [0, 0, 0]]
    alpha = pixels[..., -1] if pixels.shape[2] % 2 == 0 else np.ones(pixels.shape[:2])
    return np.dstack([colours, alpha])


def laid_over(top, below, operator: str) -> np.ndarray:
    """SVG's compositing of two RGBA pictures that are not premultiplied."""
    a, b = top[..., 3:], below[..., 3:]
    if operator == "svg:src-atop":
        alpha, colour = b, a * b * top[..., :3] + b * (1 - a) * below[..., :3]
    else:
        assert operator == "svg:src-over"
        alpha, colour = a + b * (1 - a), a * top[..., :3] + b * (1 - a) * below[..., :3]
    return np.dstack([colour / np.where(alpha > 0, alpha, 1), alpha])


def flattened(archive: zipfile.ZipFile, folder) -> np.ndarray:
    picture = None
    for layer in reversed(ElementTree.fromstring(archive.read("stack.xml")).findall("stack/layer")):
        if layer.get("visibility") == "visible":
            pixels = rgba(archive.read(layer.get("src")), folder)
            picture = pixels if picture is None else laid_over(pixels, picture, layer.get("composite-op"))
    return picture


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_the_visible_layers_show_the_result_bit_for_bit(kind, tmp_path):
    view, mask = open_source(store(tmp_path, *kind, seed=1)[0]), random_mask(2)
    result = painted(view, mask)
    archive = zipfile.ZipFile(io.BytesIO(open_raster(view, result, mask)))
    depth = np.iinfo(pixels_of(result).dtype).max
    merged = rgba(archive.read("mergedimage.png"), tmp_path)
    seen = merged[..., 3] > 0  # what is wholly transparent has no colour to compare
    assert np.abs(flattened(archive, tmp_path) - merged)[seen].max() < 0.01 / depth
    stored = pixels_of(result) / depth
    colours = slice(None) if stored.shape[2] > 2 else slice(0, 1)
    assert np.array_equal(merged[..., : stored.shape[2]][..., colours], stored[..., colours])
    layer = rgba(layer_png(result, mask), tmp_path)
    inside = np.asarray(mask) > 0
    assert np.array_equal(layer[inside], merged[inside]) and not layer[~inside].any()


def test_the_file_is_one_that_other_programs_open(tmp_path):
    view, mask = open_source(photo(tmp_path / "p.jpg", 600, 300)), Image.new("L", (600, 300))
    mask.paste(255, (10, 10, 50, 40))
    data = open_raster(view, view, mask)
    archive = zipfile.ZipFile(io.BytesIO(data))
    first, *rest = archive.infolist()
    assert first.filename == "mimetype" and first.compress_type == zipfile.ZIP_STORED
    assert data[38:54] == b"image/openraster" and archive.testzip() is None
    root = ElementTree.fromstring(archive.read("stack.xml"))
    assert (root.tag, root.get("w"), root.get("h")) == ("image", "600", "300")
    hidden, *_ = layers = root.findall("stack/layer")
    assert [layer.get("name") for layer in layers] == ["mask (white was edited)", "edited region", "source"]
    assert hidden.get("visibility") == "hidden"
    assert Image.open(archive.open(hidden.get("src"))).tobytes() == mask.tobytes()
    assert {layer.get("src") for layer in layers} < {entry.filename for entry in rest}
    thumbnail = Image.open(archive.open("Thumbnails/thumbnail.png"))
    assert thumbnail.size == (256, 128) and open_raster(view, view, mask) == data


def test_infer_writes_them_on_request_and_takes_them_away_again(call, tmp_path):
    words = ["--image", photo(tmp_path / "p.png"), "--instruction", "x", "--target_caption", "a blue circle"]
    words += ["--box", "10,5,30,20", "--out", tmp_path / "out"]
    assert call(*words, "--layers", "true") == 0
    assert files(tmp_path / "out") == RESULT | {"layer.png", "result.ora"}
    assert Image.open(tmp_path / "out" / "layer.png").getchannel("A").getbbox() == (10, 5, 30, 20)
    assert call(*words) == 0 and files(tmp_path / "out") == RESULT


def test_a_digest_of_an_earlier_version_stays_valid(tiny_edit_config, monkeypatch):
    request = EditRequest(Image.new("RGB", (20, 20)), "x", captions=Captions("a", "b"), box=(0, 0, 9, 9))
    digest, settings = Editor(tiny_edit_config).digest(request), provenance._settings

    def earlier(config):
        """The settings of a version that did not have these fields."""
        listed = settings(config)
        del listed["layers"], listed["crop"]["margin"], listed["crop"]["register"], listed["region"]["grow_if_cut"]
        del listed["region"]["vlm_box"], listed["crop"]["sample_grow"], listed["crop"]["tone"]
        return listed

    monkeypatch.setattr(provenance, "_settings", earlier)
    assert Editor(tiny_edit_config).digest(request) == digest


def test_a_program_gets_the_layers_of_a_downloaded_result(tiny_app_config, tmp_path, monkeypatch):
    _, served = endpoints(tiny_app_config, tmp_path, monkeypatch)
    picture = {"path": str(photo(tmp_path / "p.png")), "orig_name": "p.png"}
    Image.fromarray((np.indices((44, 60))[1] < 20).astype(np.uint8) * 255).save(tmp_path / "m.png")
    mask = {"path": str(tmp_path / "m.png"), "orig_name": "m.png"}
    edited = served["edit"](picture, "make the red circle blue", 0, 0, 0.0, "a blue circle", mask)
    result, _, record = next(edited)
    (tmp_path / "kept.png").write_bytes(open(result["path"], "rb").read())
    assert json.loads(record)["changed_outside"] == 0
    layer, layered = next(made := served["layers"](picture, {"path": str(tmp_path / "kept.png")}))
    assert Image.open(layer["path"]).getchannel("A").getbbox() == (0, 0, 20, 44)
    shown = flattened(zipfile.ZipFile(layered["path"]), tmp_path)[..., :3]
    assert np.array_equal((shown * 255).round(), np.asarray(Image.open(tmp_path / "kept.png")))
    made.close()
    other = {"path": str(photo(tmp_path / "q.png", seed=5)), "orig_name": "q.png"}
    with pytest.raises(Exception, match="choose that picture"):
        next(served["layers"](other, {"path": str(tmp_path / "kept.png")}))
