"""Pictures as people have them, through infer.py: what their files hold outside the region is in result.png."""

import io
import json

import numpy as np
from PIL import Image
from stored_pictures import HEIGHT, WIDTH, store, values

from regionedit.originals import open_source, pixels_of

TEXT = "make the red circle blue"
FILES = [
    ("png", "RGBA"), ("png", "LA"), ("png", "P tRNS"), ("png", "RGB tRNS"), ("png", "RGB16"), ("png", "RGBA16"),
    ("tif", "L12"), ("tif", "I"), ("webp", "RGBA"), ("png", "1"),
]  # fmt: skip


def photograph(path, **options):
    exif = Image.Exif()
    exif[0x0112], exif[271] = 6, "Camera"
    Image.fromarray(values(3, 255, 0).astype(np.uint8)).save(path, exif=exif, dpi=(300, 300), **options)
    return path


def test_every_kind_of_file_in_one_batch(call, tmp_path, capsys):
    stored, lines = {}, []
    for suffix, mode in FILES:
        path, kept = store(tmp_path, suffix, mode)
        stored[f"{path.stem}_{suffix}"] = kept
        lines.append({"image": path.name, "id": f"{path.stem}_{suffix}"})
    photograph(tmp_path / "photo.jpg")
    Image.fromarray(values(3, 255, 0).astype(np.uint8)).convert("CMYK").save(tmp_path / "press.jpg")
    lines += [{"image": "photo.jpg"}, {"image": "press.jpg"}]
    common = {"instruction": TEXT, "source_caption": "s", "target_caption": "t", "box": [3, 2, 12, 11]}
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(line | common) for line in lines))
    out = tmp_path / "out"
    assert call("--requests", tmp_path / "r.jsonl", "--out", out, "--format", "source") == 0
    for name, kept in stored.items():
        mask = np.asarray(Image.open(out / name / "mask.png"))
        written = pixels_of(open_source(out / name / "result.png"))
        assert written.dtype == kept.dtype and np.array_equal(written[mask == 0], kept[mask == 0]), name
        assert (written[mask > 0] != kept[mask > 0]).any(), name
        assert json.loads((out / name / "run.json").read_text())["picture"]["stored"]
    copies = {path.parent.name: path.name for path in out.glob("*/result.*") if path.suffix != ".png"}
    assert copies == {
        "photo": "result.jpg", "press": "result.jpg", "RGBA_webp": "result.webp", "L12_tif": "result.tif",
        "I_tif": "result.tif",
    }  # fmt: skip
    note = json.loads((out / "photo" / "run.json").read_text())["note"]
    assert "result.png is exact" in note and "turned upright" in note
    written = Image.open(out / "photo" / "result.png")
    assert written.size == (HEIGHT, WIDTH) and written.getexif()[271] == "Camera" and written.info["dpi"][0] > 299
    assert "CMYK" in json.loads((out / "press" / "run.json").read_text())["note"]
    sheet = np.asarray(Image.open(out / "contact_sheet.png"))
    assert sheet[150:270, 136:260].std() > 20  # RGB tRNS, 16-bit and 12-bit results are shown, not white
    assert "wholly transparent" in json.loads((out / "RGBA_png" / "run.json").read_text())["note"]


def test_one_file_with_what_the_options_ask_for(call, tmp_path, capsys):
    words = ("--instruction", TEXT, "--target_caption", "t", "--source_caption", "s", "--box", "3,2,12,11")
    deep = tmp_path / "deep.ppm"
    deep.write_bytes(b"P6 23 17 65535\n" + values(3, 65535, 0).astype(">u2").tobytes())
    out = tmp_path / "out"
    assert call("--image", deep, *words, "--out", out) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "deep.ppm" in line and "--depth 8" in line and not out.exists()
    assert call("--image", deep, *words, "--out", out, "--depth", "8") == 0
    assert "reduced to 8 bits" in capsys.readouterr().out
    photo = photograph(tmp_path / "photo.jpg")
    assert call("--image", photo, *words, "--out", out, "--format", "source") == 0
    assert (out / "result.jpg").is_file() and "result.png is exact" in capsys.readouterr().out
    assert call("--image", photo, *words, "--out", out, "--strip_metadata", "true") == 0
    written = Image.open(io.BytesIO((out / "result.png").read_bytes()))
    assert not written.getexif() and "dpi" not in written.info and not (out / "result.jpg").exists()
