"""Requests, lists, arguments and configurations that must be refused."""

import json

from regionedit.command_line import short_line

LONG = "x" * 10_000
ROW = {"image": "good.png", "instruction": "make the ring blue"}
WRONG = {
    "image": [None, 3, [], {}, True, "", ".", "..", "/", "/dev", "none.png", "nul\0.png", LONG,
              "\ud800.png", "https://example.com/x.png", "file:///etc/passwd", "$(id).png", "~/x.png",
              "\x1b]0;x\x07.png", "<b>.png"],
    "instruction": [None, 3, True, [], {}, ["x"], "", " ", "\n\t", LONG, "a\0b", "half \ud83d"],
    "seed": [None, "3", 1.5, True, [], {}, 1e3],
    "source_caption": [None, 3, [], "a\0b", "\udfff"],
    "target_caption": [None, 3, {}, "\ud800"],
    "mask": [None, 3, "", ".", "none.png", LONG, "nul\0"],
    "mask_is": [None, 3, "", "x", "luma"],
    "mask_soft": [None, 1, "true", True],
    "mask_value": [None, -1, "x", "#12", "1;2", [], True, 3, "9" * 10_000],
    "mask_operations": [None, 3, "x", ["x"], [3], {}, "fill;largest", [["fill"]]],
    "box": [None, 3, "", [], [1, 2, 3], [1, 2, 3, 4, 5], ["1", "2", "3", "4"], [1.5, 2, 3, 4], [True, 2, 3, 4], "1,2,3",
            "a,b,c,d", {}, [[1, 2], [3, 4]], "1,2,3,1e9"],
    "click": [None, 3, "", [], [1], [1, 2, 3], ["a", "b"], "1", "1,2;", [True, False], [[1, 2], [3]], {}, [1.5, 2]],
    "id": [None, 3, "", ".", "..", ".x", "../x", "a/b", "a\\b", "nul\0", "x" * 201, "ä" * 150, "a\nb",
           "\x1b[31m", "\ud800", "contact_sheet.png", "failures.jsonl", "skipped.jsonl", "log.txt"],
    "evil": [1],
    "__class__": ["x"],
}  # fmt: skip
INSTRUCTIONS = [[], [""], [3], [None], [[]], [{}], [{"text": 3}], [{"text": "x", "strength": "much"}], {"text": ""},
                [{"text": "x", "strength": True}], [{"text": "x", "strength": float("nan")}], [{"strength": 1}],
                [{"text": "x", "strength": float("inf")}], [{"text": "x", "strength": -1}], {"text": "x", "evil": 1},
                [{"text": "x", "keyword": 3}], [{"text": LONG}], ["x", "a\0b"], None, 3]  # fmt: skip
LINES = {
    **{f"{name} {k}": json.dumps(ROW | {name: v}) for name, given in WRONG.items() for k, v in enumerate(given)},
    **{f"instructions {k}": json.dumps({"image": "good.png", "instructions": v}) for k, v in enumerate(INSTRUCTIONS)},
    "cut off": "{",
    "null": "null",
    "a number": "3",
    "a string": '"x"',
    "a list": "[]",
    "nothing in it": "{}",
    "not a number": "NaN",
    "deep brackets": "[" * 100_000,
    "deep objects": '{"a":' * 50_000,
    "a number of 5,000 digits": json.dumps(ROW)[:-1] + ', "seed": ' + "9" * 5000 + "}",
    "no instruction": '{"image": "good.png"}',
    "no picture": '{"instruction": "x"}',
    "both instructions": json.dumps(ROW | {"instructions": ["x"]}),
    "mask and box": json.dumps(ROW | {"mask": "good.png", "box": [1, 2, 3, 4]}),
    "Python": "{'image': 'good.png'}",
    "markup": "<script>alert(1)</script>",
    "two objects": json.dumps(ROW) * 2,
    "two seeds": json.dumps(ROW)[:-1] + ', "seed": 1, "seed": 2}',
    "two texts in one instruction": '{"image": "good.png", "instructions": [{"text": "x", "text": "y"}]}',
}  # fmt: skip
LISTS = {
    "l.jsonl": [b"", b"\n\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xff\xfex", b"\x00" * 50, b"caf\xe9",
                b"\x89PNG\r\n\x1a\n", b"\x1f\x8b\x08", b'{"image": "good.png", "instruction": "x"}\0'],
    "l.csv": [b"", b"image,instruction", b"image;instruction\n\"good.png;x", b"image,instruction\na,b,c,d",
              b"sep=;", b"\xff\xfe,", b"picture,text\ngood.png,x", b"image,instruction\n" + b"y" * 200_000 + b",x",
              b"image,instruction,seed\ngood.png,x,many", b"image,instruction\n../../../../etc/shadow.png,x",
              b"=cmd|' /C calc'!A0,x\n1,2", b"image,Image,instruction\ngood.png,other.png,x"],
}  # fmt: skip


IMAGE = ("--image", "{folder}/good.png", "--instruction", "x")
ARGUMENTS = [
    ("--image", "{folder}/good.png"), ("--image",), ("--evil", "1"), ("evil",), ("--image", LONG, "--instruction", "x"),
    ("--image", "https://example.com/x.png", "--instruction", "x"), ("--image", "a\0b", "--instruction", "x"),
    ("--image", "{folder}/good.png", "--instruction", LONG), ("--image", "{folder}/good.png", "--instruction", "a\0b"),
    ("--requests", LONG), ("--requests", "{folder}"), ("--requests", "{folder}/good.png"), ("--requests", "a\0b"),
    *((*IMAGE, "--box", box) for box in ("1", "1,2,3", "a,b,c,d", "9,9,1,1", "50,50,60,60", "1,2,3,nan", LONG,
                                       "-9,-9,-1,-1")),
    *((*IMAGE, "--click", click) for click in ("1", "a,b", "40,30", "-1,0", "1,2,3", LONG, "9" * 5000 + ",1")),
    *((*IMAGE, "--mask", mask) for mask in ("none.png", LONG, "{folder}/good.png", "{folder}", "a\0b")),
    *((*IMAGE, "--seed", seed) for seed in ("many", "1.5", "", "1e999", "[1]", "!!python/name:os.system")),
    (*IMAGE, "--out", "{folder}/good.png"), (*IMAGE, "--out", "{folder}/good.png/x"),
    (*IMAGE, "--out", "{folder}/" + "x" * 300), (*IMAGE, "--out", "a\0b"), (*IMAGE, "--batch", "0"),
    (*IMAGE, "--batch", "-3"),
    (*IMAGE, "--max_pixels", "0"),
    (*IMAGE, "--max_pixels", "9"), (*IMAGE, "--workers", "0"), (*IMAGE, "--depth", "9"), (*IMAGE, "--format", "../x"),
    (*IMAGE, "--mask_operations", "explode"), (*IMAGE, "--mask_is", "x"), (*IMAGE, "--mask_value", "3"),
    (*IMAGE, "--layers", "2"), (*IMAGE, "--mask_source", "import os"), (*IMAGE, "--mask_source", "learned +"),
    (*IMAGE, "--mask_source", "(" * 5000), (*IMAGE, "--device", "toaster"), (*IMAGE, "--generator.name", "__import__"),
    (*IMAGE, "--crop.context", "0.5"),
    (*IMAGE, "--crop.match", "-1"), (*IMAGE, "--region", "3"), (*IMAGE, "--generator.num_inference_steps", "x" * 5000),
    (*IMAGE, "--config", "{folder}/none.yaml"), (*IMAGE, "--config", "{folder}/good.png"),
    (*IMAGE, "--config", "{folder}"),
]  # fmt: skip
CONFIGURATIONS = [
    b"- a\n- b", b"just words", b"3", b"seed: [", b"a: b: c", b"\tseed: 3", b"\xff\xfe\x00", b"\0", b"evil: 1",
    b"seed: many", b"seed: 1.5", b"seed: .inf", b"batch: 0", b"region: 3", b"region:\n  evil: 1", b"region: [1, 2]",
    b"generator: null",
    b"generator: {name: evil}", b"region: {threshold: high}", b"!!python/object/apply:os.system ['touch pwned']",
    b"seed: !!python/object/apply:os.getpid []", b"seed: *nowhere", b"? [a]\n: 1", b"[" * 1200, b"{a: " * 1200, b"1: 2",
    b"<html>404 Not Found</html>", b"generator.name: stable_diffusion", b"seed: 3\n---\nseed: 4", b"{{ seed }}",
]  # fmt: skip


def one_clear_line(message: str) -> str:
    line = short_line(message)
    assert line.isprintable() and 10 < len(line) < 900 and "Traceback" not in line, line
    return line
