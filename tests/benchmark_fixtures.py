"""Every benchmark in its exact form on disk, a few cases each, with the flaws that are known to be in the wild."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIZE = (32, 24)  # (width, height) of most pictures
LONG_CAPTION = " ".join(f"word{i}" for i in range(120))  # more than CLIP's 77 tokens
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # how `datasets` stores a picture


def picture(seed: int = 0, size: tuple[int, int] = SIZE, mode: str = "RGB") -> Image.Image:
    """A noisy picture without a black pixel."""
    values = np.random.default_rng(seed).integers(1, 256, (size[1], size[0], len(mode)), np.uint8)
    return Image.fromarray(values if len(mode) > 1 else values[..., 0])


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def save(image: Image.Image, path: Path, kind: str = "PNG") -> None:
    """Write a picture, whatever the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(image, kind))


def write_parquet(path: Path, rows: Sequence[dict], pictures: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(rows, pictures), path, row_group_size=max(3, len(rows) // 2))
    return path


def table(rows: Sequence[dict], pictures: Sequence[str]) -> pa.Table:
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name in pictures:
            structs = [None if value is None else {"bytes": value, "path": None} for value in values]
            columns[name] = pa.array(structs, STRUCT)
        else:
            columns[name] = pa.array(values)
    return pa.table(columns)


TASKS = ("background", "global", "style", "remove", "add", "local", "texture")


def emu_row(idx: int, source: str | None = "a dog", target: str | None = "a cat", **changed) -> dict:
    return {
        "instruction": f"make it a cat, {idx}",
        "image": encoded(picture(idx, (6, 4))),
        "task": TASKS[idx % len(TASKS)],
        "split": "test",
        "idx": idx,
        "hash": f"{idx:x}",
        "input_caption": source,
        "output_caption": target,
    } | changed


def write_emu_edit(folder: Path, rows: Sequence[dict], split: str = "test", shards: int = 1) -> Path:
    """`data/{split}-00000-of-00001-64edd860175df28a.parquet`, ..., as on the hub."""
    each = -(-len(rows) // shards)
    for n in range(shards):
        name = f"{split}-{n:05d}-of-{shards:05d}-64edd860175df28a.parquet"
        write_parquet(folder / "data" / name, rows[n * each : (n + 1) * each], ["image"])
    return folder


def flawed_emu_rows() -> list[dict]:
    """Ten rows in no order; 2, 4, 6 and 8 are flawed, the captions of 3 are long."""
    flawed = {
        2: ("A dog. ", "a dog."),
        3: (LONG_CAPTION, LONG_CAPTION + " more"),
        4: ("a train station in city", "a train station in snow"),
        6: ("", "a cat"),
        8: (None, "a cat"),
    }
    return [emu_row(idx, *flawed.get(idx, ("a dog", "a cat"))) for idx in (5, 2, 9, 0, 1, 4, 3, 8, 6, 7)]


def hole(size: tuple[int, int], box: tuple[int, int, int, int], seed: int = 9) -> Image.Image:
    """A mask as MagicBrush has it: the picture, RGBA, with a transparent hole over what is still there."""
    mask = picture(seed, size, "RGBA")
    alpha = Image.new("L", size, 255)
    alpha.paste(0, box)
    mask.putalpha(alpha)
    return mask


def write_magicbrush(folder: Path, sessions: dict[str, int] | None = None) -> Path:
    """The released test set's layout: {img_id: turns}; masks are of twice the pictures' size."""
    sessions = sessions or {"139": 3, "30": 1, "149": 2}
    listed, local, overall = {}, {}, {}
    for number, (name, turns) in enumerate(sessions.items()):
        at = folder / "images" / name
        save(picture(10 * number), at / f"{name}-input.png")
        overall[name] = {f"{name}-input.png": f"all of {name}"}
        local[name], listed[name] = {}, []
        for turn in range(1, turns + 1):
            before = f"{name}-output{turn - 1}.png" if turn > 1 else f"{name}-input.png"
            after, mask = f"{name}-output{turn}.png", f"{name}-mask{turn}.png"
            save(picture(10 * number + turn), at / after)
            save(hole((64, 48), (0, 0, 32, 24)), at / mask)
            local[name][after] = f"part {turn} of {name}"
            overall[name][after] = f"all of {name} after {turn}"
            listed[name].append({"input": before, "mask": mask, "output": after, "instruction": f"turn {turn}"})
    (folder / "edit_sessions.json").write_text(json.dumps(listed))
    (folder / "local_descriptions.json").write_text(json.dumps(local))
    (folder / "global_descriptions.json").write_text(json.dumps(overall))
    return folder


def write_pie_bench(folder: Path, kinds: Sequence[str] = ("1", "8", "9", "6")) -> Path:
    rows = {}
    for number, kind in enumerate(kinds):
        path = f"{kind}_change/{number:012d}.jpg"
        rows[f"{number:012d}"] = {
            "image_path": path,
            "original_prompt": "a [red] apple",
            "editing_prompt": f"a [green] apple {number}",
            "editing_instruction": "" if kind == "9" else "make the apple green",
            "editing_type_id": kind,
            "blended_word": "apple apple",
            "mask": [0, 262144] if kind == "9" else [512 * 10 + 20, 30, 512 * 11 + 20, 30],
        }
        save(picture(number, (512, 512)), folder / "annotation_images" / path, "JPEG")
    (folder / "mapping_file.json").write_text(json.dumps(rows))
    return folder


def write_human_edit(folder: Path, count: int = 4) -> Path:
    """IMAGE_ID comes again, masks are RGB with a black hole over the picture, the last one has none."""
    rows = []
    for number in range(count):
        mask = picture(number)
        mask.paste((0, 0, 0), (0, 0, 16, 24) if number < count - 1 else (0, 0, 0, 0))
        rows.append(
            {
                "IMAGE_ID": f"pexels/{number // 2}",
                "EDITING_TYPE": ("Add", "Remove", "Counting", "Action")[number % 4],
                "CORE": number % 2,
                "MASK": 1,
                "EDITING_INSTRUCTION": f"do {number}",
                "OUTPUT_DESCRIPTION": "" if number == 0 else f"written {number}",
                "INPUT_CAPTION_BY_LLAMA": LONG_CAPTION,
                "OUTPUT_CAPTION_BY_LLAMA": f"generated {number}",
                "INPUT_IMG": encoded(picture(number), "JPEG"),
                "MASK_IMG": encoded(mask),
                "OUTPUT_IMG": encoded(picture(number + 50), "JPEG"),
            }
        )
    write_parquet(folder / "data/train-00000-of-00001-7ba280c9a805ec9a.parquet", rows, PICTURES)
    return folder


def write_comp_bench(folder: Path) -> Path:
    """Both splits: a path that two tasks share, a pair of captions, a task without masks, an empty mask."""
    single = [
        ("add", "001ca3cb/0/00003.png", "a gray fish"),
        ("remove", "001ca3cb/0/00003.png", "a gray fish"),
        ("replace", "001ca3cb/1/00004.png", "a crab"),
        ("multi_object_add", "02b72b8d_00002.png", "a yellow fish|a white fish"),
        ("implicit_reasoning", "02b72b8d_2_00016.png", "a diver"),
        ("action", "00000.png", ""),
    ]
    turns = [
        (f"multi_turn_{what}", f"turn{turn}_{what}/02b72b8d_0000{number}_t{turn}.png", caption)
        for what, caption in (("add", "a boat"), ("remove", ""))
        for turn in (1, 2)
        for number in range(2)
    ]
    for name, rows in (("train", single), ("multi_turn", turns)):
        stored = [
            {
                "task": task,
                "image_path": path,
                "input_image": encoded(picture(number)),
                "edited_image": encoded(picture(number + 50)),
                "instruction": f"do {number}",
                "caption": caption,
                "mask": None if task == "action" else encoded(_box_mask(empty=task == "replace")),
            }
            for number, (task, path, caption) in enumerate(rows)
        ]
        write_parquet(folder / f"data/{name}-00000-of-00001.parquet", stored, ("input_image", "edited_image", "mask"))
    return folder


def _box_mask(empty: bool) -> Image.Image:
    """RGB, white in the region."""
    mask = Image.new("RGB", SIZE)
    if not empty:
        mask.paste((255, 255, 255), (8, 4, 24, 16))
    return mask


PICTURES = ("INPUT_IMG", "MASK_IMG", "OUTPUT_IMG")


def write_gedit(folder: Path) -> Path:
    """As `save_to_disk` leaves it, two arrow shards; every key in English and Chinese."""
    rows = [
        {
            "task_type": ("color_alter", "ps_human")[n % 2],
            "key": f"key{n}",
            "instruction": words,
            "instruction_language": language,
            "input_image": encoded(picture(n)),
            "input_image_raw": encoded(picture(n, (64, 48))),
            "Intersection_exist": True,
        }
        for n in range(3)
        for language, words in (("en", f"colour it {n}"), ("cn", f"改变颜色 {n}"))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(2):
        part = table(rows[3 * n : 3 * n + 3], ["input_image", "input_image_raw"])
        with pa.ipc.new_stream(folder / f"data-{n:05d}-of-00002.arrow", part.schema) as stream:
            stream.write_table(part, max_chunksize=2)
    (folder / "state.json").write_text("{}")
    (folder / "dataset_info.json").write_text("{}")
    return folder


def write_imgedit(folder: Path) -> Path:
    """The basic suite: keys are numbers, pictures lie in folders by subject, one prompt is empty."""
    kinds = ("adjust", "compose", "replace", "style")
    rows = {
        str(1082 + n): {"id": f"animal/0003{n}.jpg", "prompt": f"change it {n}" if n < 3 else " ", "edit_type": kind}
        for n, kind in enumerate(kinds)
    }
    for n, row in enumerate(rows.values()):
        save(picture(n), folder / row["id"], "JPEG")
    (folder / "basic_edit.json").write_text(json.dumps(rows))
    return folder


def write_dlebench(folder: Path) -> Path:
    """The fields that the card names, with invented names for instruction and target caption; two flawed rows."""
    rows = []
    for n, kind in enumerate(("Add", "Remove", "Replace", "Add")):
        name = f"{n:04d}.jpg"
        texts = {"edit_operation": kind, "prompt_clean": f"a desk {n}", "their_caption": f"a tidy desk {n}"}
        rows.append({"image": name, "reference_image": name, **texts, "their_request": f"do {n}", "boxes": [[1, 2]]})
        save(picture(n), folder / "Source_Images" / name, "JPEG")
        save(picture(n + 50), folder / "Reference_Images" / name, "JPEG")
    (folder / "Reference_Images/0003.jpg").unlink()
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    (folder / "fields.yaml").write_text("instruction: their_request\ntarget_caption: their_caption\n")
    return folder


EDITING_MASK_LINES = (
    "1 <> A photo of a Persian cat on a beach. <> Persian cat <> a raccoon",
    "10 <> A fuzzy panda riding a bike. <> riding a bike <> skateboarding",
    "ILSVRC2012_val_00028602.JPEG <> beagle <> Afghan hound",
    "ILSVRC2012_val_00004483.JPEG <> moped <> unicycle",
)


def write_editing_mask(folder: Path) -> Path:
    """The authors' repository with its archive unpacked; lines end in CR LF; a .jpg is really a PNG; one mask lacks."""
    (folder / "dataset_txt").mkdir(parents=True)
    (folder / "dataset_txt/Editing-Mask_list.txt").write_bytes("\r\n".join(EDITING_MASK_LINES).encode())
    data = folder / "dataset/Editing-Mask"
    for number, name in enumerate(("1.jpg", "10.jpg", "ILSVRC2012_val_00028602.JPEG", "ILSVRC2012_val_00004483.JPEG")):
        save(picture(number), data / "image" / name, "PNG" if number == 0 else "JPEG")
        mask = Image.new("L", (64, 48))
        mask.paste(255, (0, 0, 32, 48))
        if number < 3:
            save(mask, data / "mask" / Path(name).with_suffix(".png"))
    return folder


def write_folder(folder: Path) -> Path:
    """Two cases with all there can be, one with an instruction alone."""
    for n in range(3):
        save(picture(n), folder / f"pictures/{n}.png")
    save(picture(7), folder / "target.png")
    mask = Image.new("L", SIZE)
    mask.paste(255, (0, 0, 16, 24))
    save(mask, folder / "mask.png")
    rows = [
        {
            "id": "first",
            "image": "pictures/0.png",
            "instructions": [{"text": "make the cat blue", "strength": 2.0, "keyword": "cat"}, "remove the dog"],
            "source_caption": "a cat and a dog",
            "target_caption": "a blue cat",
            "mask": "mask.png",
            "target": "target.png",
            "operation": "recolour",
        },
        {"image": "pictures/1.png", "instruction": "add a hat", "seed": 4, "target": "target.png"},
        {"image": "pictures/2.png", "instruction": "add snow"},
    ]
    (folder / "cases.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "emu_edit": lambda folder: write_emu_edit(folder, flawed_emu_rows(), shards=2),
    "emu_edit_unfiltered": lambda folder: write_emu_edit(folder, flawed_emu_rows(), shards=2),
    "magicbrush": write_magicbrush,
    "magicbrush_multi_turn": write_magicbrush,
    "magicbrush_every_turn": write_magicbrush,
    "pie_bench": write_pie_bench,
    "human_edit": write_human_edit,
    "editing_mask": write_editing_mask,
    **{
        name: write_comp_bench
        for name in (
            "comp_bench",
            "comp_bench_local",
            "comp_bench_multi_object",
            "comp_bench_implicit",
            "comp_bench_turn_1",
            "comp_bench_turn_2",
        )
    },
    "gedit": write_gedit,
    "gedit_chinese": write_gedit,
    "imgedit": write_imgedit,
    "dlebench": write_dlebench,
    "folder": write_folder,
}
