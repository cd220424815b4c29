"""Lists as programs and spreadsheets save them: byte-order marks, UTF-16, line separators, CSV; and quotes in texts."""

import csv
import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from regionedit.list_files import csv_lines
from regionedit.mask_files import MaskReading
from regionedit.request_files import read_requests, split_instructions

TEXT = "write “a\u2028b\u2029c\x85d” on it"
ROW = {"image": "a.png", "instruction": TEXT, "seed": 3}


@pytest.fixture
def read(tmp_path):
    """Reads requests from a file with these bytes; pictures a.png and b.png and mask m.png exist."""
    for name in "abm":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")

    def from_bytes(data: bytes, name: str = "r.jsonl"):
        (tmp_path / name).write_bytes(data)
        return read_requests(tmp_path / name)

    return from_bytes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_jsonl_as_other_programs_write_it(read, encoding, end):
    line = json.dumps(ROW, ensure_ascii=False)
    text = end.join([line, "", line, ""])
    text = "\ufeff" + text if encoding == "utf-16-le" else text
    requests = read(text.encode(encoding))
    assert [(r.id, r.instructions[0].text, r.seed) for r in requests] == [("a", TEXT, 3), ("a_2", TEXT, 3)]


@pytest.mark.parametrize(("on_disk", "in_list"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_may_be_written_in_two_ways(read, tmp_path, on_disk, in_list):
    Image.new("RGB", (4, 4)).save(tmp_path / unicodedata.normalize(on_disk, "höhle.png"))
    row = ROW | {"image": unicodedata.normalize(in_list, "höhle.png")}
    (request,) = read(json.dumps(row).encode())
    assert request.image.exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("first", ["", "sep={}\n", '"SEP={}"\r\n'])
def test_a_csv_from_a_spreadsheet(read, encoding, separator, first):
    text = io.StringIO()
    rows = csv.writer(text, delimiter=separator)
    rows.writerow(["Image", " Instruction ", "SEED", "click", ""])
    rows.writerow(["a.png", 'say "Ein Wort; noch eins", größer', "7", "1,2;3,1", ""])
    rows.writerow(["", "", "", "", ""])
    rows.writerow(["b.png", "two\nlines", "", "", ""])
    first_request, second = read((first.format(separator) + text.getvalue()).encode(encoding), "r.csv")
    assert first_request.instructions[0].text == 'say "Ein Wort; noch eins", größer' and first_request.seed == 7
    assert first_request.click == ((1, 2), (3, 1))
    assert second.instructions[0].text == "two\nlines" and second.seed == 0 and second.click is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,instruction\na.png,x\nnone.png,x\n", "line 3: image: .*none.png"),
        ('image,instruction\na.png,"x\ny"\nnone.png,x\n', "line 4: image: .*none.png"),
        ("sep=;\nimage;instruction\nnone.png;x\n", "line 3: image: "),
        ("image,instruction\na.png,x,y\n", "line 2: 3 cells, but the header has 2"),
        ("image;instruction;seed\na.png;x;many\n", "line 2: seed: 'many'"),
        ('image,instruction\na.png,"x\n', "r.csv: line 2: "),
        ('sep=,\nimage,instruction\na.png,"say "hi" to it"\n', "r.csv: line 3: "),
        (f"image,instruction\na.png,{'x' * 200_000}\n", "r.csv: line 2: field larger than"),
        ("image,instruction,mask_soft\na.png,x,perhaps\n", "mask_soft: 'perhaps'"),
        ("image,picture\na.png,x\n", "unknown field 'picture'"),
        (",image,instruction\n7,a.png,x\n", "line 2: the cell '7' is in a column without a name; .*index=False"),
        ("image,instruction\n", "holds no request"),
        ("", "holds no request"),
    ],
)
def test_a_broken_csv_says_in_which_line(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text.encode(), "r.csv")


def test_text_in_another_encoding_says_what_to_do(read):
    with pytest.raises(ValueError, match=r"r\.csv is not UTF-8 text: .*save it as UTF-8"):
        read("image;instruction\na.png;größer\n".encode("cp1252"), "r.csv")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=2))
def test_whatever_a_csv_writer_wrote_is_read_back(cells):
    names = [f"c{k}" for k in range(len(cells))]
    text = io.StringIO()
    csv.writer(text).writerows([names, cells])
    (line,) = filter(None, csv_lines(text.getvalue())) if any(map(str.strip, cells)) else ("{}",)
    assert json.loads(line) == {name: cell for name, cell in zip(names, cells, strict=True) if cell.strip()}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"mask": "m.png", "box": [0, 0, 2, 2]}, "line 1: mask, box: give one of them"),
        ({"mask_is": "luma"}, "line 1: mask_is: .* give a mask as well"),
        ({"mask_soft": True, "box": [0, 0, 2, 2]}, "line 1: mask_soft: .* give a mask as well"),
        ({"mask": "m.png", "mask_is": "white"}, "line 1: mask_is: 'white' is unknown"),
        ({"mask": "m.png", "mask_soft": "yes"}, "line 1: mask_soft: 'yes' is not of type bool"),
        ({"mask": "m.png", "mask_soft": 1}, "line 1: mask_soft: 1 is not of type bool"),
        ({"mask": "m.png", "mask_value": True}, "line 1: mask_value: True is not"),
        ({"mask": "m.png", "mask_value": -1}, "line 1: mask_value: '-1' is no whole number"),
        ({"mask_operations": "widen"}, "line 1: mask_operations: 'widen' is unknown; there are: invert, fill"),
        ({"mask_operations": [3]}, "line 1: mask_operations: '3' is unknown"),
    ],
)
def test_a_contradiction_about_the_mask_is_refused_at_parsing(read, row, message):
    with pytest.raises(ValueError, match=message):
        read(json.dumps(ROW | row).encode())


def test_a_line_says_how_its_mask_is_read(read):
    row = ROW | {"mask": "m.png", "mask_soft": True, "mask_value": 3, "mask_operations": ["fill", "box"]}
    (from_json,) = read(json.dumps(row).encode())
    (from_csv,) = read(
        b'image,instruction,mask,mask_soft,mask_value,mask_operations\na.png,x,m.png,TRUE,3,"fill, box"\n', "r.csv"
    )
    for request in (from_json, from_csv):
        assert request.reading == MaskReading(mask_soft=True, mask_value="3")
        assert request.mask_operations == ("fill", "box")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('say "Open; come in"', ['say "Open; come in"']),
        ('say "Open; come in"; make it red', ['say "Open; come in"', "make it red"]),
        ("write “a; b”; write „c; d“; write «e; f»", ["write “a; b”", "write „c; d“", "write «e; f»"]),
        ("write 'a; b' on it; make it red", ["write 'a; b' on it", "make it red"]),
        ("write 'it's a; b'", ["write 'it's a; b'"]),
        ("make the dog's ear red; the cat's ear blue", ["make the dog's ear red", "the cat's ear blue"]),
        ("paint the dogs' bowl; paint the cats' bowl", ["paint the dogs' bowl", "paint the cats' bowl"]),
        ('make it 5" wide; make the 3" nail red', ['make it 5" wide', 'make the 3" nail red']),
        ('write "a; b', ['write "a', "b"]),
        ("a; b", ["a", "b"]),
    ],
)
def test_quotes_bind(text, parts):
    assert split_instructions(text) == parts
