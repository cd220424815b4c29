"""Given instructions: captions come from a column or from the describer, target captions from the writer."""

import json

import numpy as np
import pytest
from PIL import Image
from write_instructions import run

from regionedit import describe
from regionedit.config import GivenConfig
from regionedit.data.manifest import Manifest
from regionedit.data.shards import ShardReader
from regionedit.images import png
from regionedit.microworld.renderer import render
from regionedit.microworld.splits import sample
from tests.instruction_fixtures import config, sidecar
from tests.shards import picture, write_tar

EDITS = [edit for edit in (sample("train", 0, index) for index in range(80)) if edit.operation == "recolour"][:4]


def given(folder, **changes):
    return config(folder, source="instructions", writer="microworld", **changes)


def test_captions_of_a_json_column_and_instructions_of_the_text(tmp_path):
    members = []
    for n, edit in enumerate(EDITS):
        about = json.dumps({"alt": edit.source_caption}).encode()
        members.append((f"k{n}", {"png": picture(n), "txt": edit.instruction.encode(), "json": about}))
    write_tar(tmp_path / "00000.tar", members)
    summary = run(given(tmp_path, caption_column="alt"))
    assert summary.written == 4
    header, lines = sidecar(tmp_path)
    assert header["source"] == "instructions" and header["caption_column"] == "alt" and "mix" not in header
    for n, edit in enumerate(EDITS):
        assert lines[f"k{n}"]["instruction"] == edit.instruction
        assert lines[f"k{n}"]["source_caption"] == edit.source_caption
        assert lines[f"k{n}"]["target_caption"] == edit.target_caption
        assert lines[f"k{n}"]["operation"] == "recolour"
    reader = ShardReader(Manifest.open(tmp_path), size=8)
    assert reader.read(0).source_caption == EDITS[0].source_caption
    assert reader.read(0).instruction == EDITS[0].instruction
    reader.close()


def drawn() -> list[tuple[str, dict[str, bytes]]]:
    """The pictures of EDITS, with their instruction in the .json and a useless text in the .txt."""
    pictures = render([edit.source for edit in EDITS])
    return [
        (f"k{n}", {"png": png(Image.fromarray(shown)), "txt": b"IMG_0001.JPG",
                   "json": json.dumps({"instruction": edit.instruction}).encode()})
        for n, (edit, shown) in enumerate(zip(EDITS, pictures, strict=True))
    ]  # fmt: skip


@pytest.fixture
def described_at_once(monkeypatch) -> list[int]:
    """How many pictures the describer gets at each call."""
    shown, real = [], describe.Microworld.source_captions

    def watch(self, pictures):
        shown.append(len(pictures))
        return real(self, pictures)

    monkeypatch.setattr(describe.Microworld, "source_captions", watch)
    return shown


def test_the_describer_captions_pictures_without_a_caption(tmp_path, described_at_once):
    members = [*drawn(), ("bad", {"png": b"no picture", "txt": b"", "json": b'{"instruction": "remove the red ring"}'})]
    blank = png(Image.fromarray(np.full((64, 64, 3), 255, np.uint8)))
    members += [("blank", {"png": blank, "txt": b"", "json": b'{"instruction": "enlarge the ring"}'})]
    write_tar(tmp_path / "00000.tar", members)
    summary = run(given(tmp_path, instruction_column="instruction"))
    header, lines = sidecar(tmp_path)
    assert header["describe"]["name"] == "microworld" and described_at_once == [5]
    assert summary.dropped["picture: damaged"] == 1 and summary.dropped.total() == 2 and summary.written == 4
    assert "ring" not in lines["blank"].get("source_caption", "")  # described from the picture only
    for n, edit in enumerate(EDITS):
        caption = lines[f"k{n}"]["source_caption"]
        assert all(f"{t.color} {t.shape}" in caption for t in edit.source.things)
        assert f"{edit.changed.color} {edit.changed.shape}" in lines[f"k{n}"]["target_caption"]


def test_useless_alt_texts_are_replaced_by_captions_of_the_pictures(tmp_path):
    write_tar(tmp_path / "00000.tar", [*drawn(), ("bad", {"png": b"no picture"})])
    summary = run(config(tmp_path, source="pictures", writer="microworld"))
    header, lines = sidecar(tmp_path)
    assert summary.written == 4 and summary.dropped == {"picture: damaged": 1}
    assert header["source"] == "pictures" and header["describe"]["name"] == "microworld" and header["mix"]
    for n, edit in enumerate(EDITS):
        caption = lines[f"k{n}"]["source_caption"]
        assert all(f"{t.color} {t.shape}" in caption for t in edit.source.things)
        assert (lines[f"k{n}"]["target_caption"] == caption) == (lines[f"k{n}"]["operation"] == "noop")
    reader = ShardReader(Manifest.open(tmp_path), size=8)
    assert reader.read(0).source_caption == lines["k0"]["source_caption"]
    reader.close()


def test_a_describer_that_describes_nothing_is_refused_at_once(tmp_path):
    write_tar(tmp_path / "00000.tar", [("k0", {"png": picture(0), "txt": b"make it red"})])
    for source in ("pictures", "instructions"):
        with pytest.raises(ValueError, match="describe.name: `given`"):
            run(config(tmp_path, source=source, writer="microworld", describe=GivenConfig()))


BAD_COLUMNS = (
    (b"{}", "instruction: no what in the json"),
    (b"[]", "instruction: no what in the json"),
    (b'{"wh', "instruction: no what in the json"),
    (b'{"what": 7}', "instruction: no text in the json's what"),
    (b'{"what": "  "}', "instruction: empty"),
    (b'{"what": "\xff"}', "instruction: not UTF-8"),
    (b'{"what": "' + b"x" * 400 + b'"}', "instruction: too long"),
    (None, "unpaired: no instruction (.json)"),
)


def test_bad_columns_are_dropped_and_counted(tmp_path):
    parts = [{"png": picture(0), "txt": b"a dog"} | ({"json": about} if about else {}) for about, _ in BAD_COLUMNS]
    write_tar(tmp_path / "00000.tar", [(f"k{n}", part) for n, part in enumerate(parts)])
    run(given(tmp_path, instruction_column="what", caption_column="txt"))
    assert [line["dropped"] for line in sidecar(tmp_path)[1].values()] == [reason for _, reason in BAD_COLUMNS]
