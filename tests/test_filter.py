"""Filtering a folder of shards: each rule finds its samples, runs resume, and damaged data is reported."""

import json
import os
import sys

import filter as filtering
import measurements
import pytest

from regionedit.data.manifest import Manifest
from regionedit.data.marks import write_marks
from tests.benchmark_fixtures import emu_row, write_emu_edit
from tests.crawls import jpeg, photograph, read_reasons, sample, write_crawl
from tests.shards import write_instructions

FLAWED = {  # reason -> a sample that is marked for this reason only
    "min_side": sample(1, size=(300, 255)),
    "max_aspect": sample(2, size=(900, 256)),
    "min_words": sample(3, "brown dog"),
    "max_words": sample(4, "very " * 60 + "old dog"),
    "min_latin": sample(5, "коричневая собака на траве"),
    "max_foreign": sample(6, "ein brauner Hund auf einer Wiese und der Himmel"),
    "boilerplate": sample(7, "Royalty-free stock photo of a dog"),
    "max_unsafe": sample(8, punsafe=0.51),
    "max_watermark": sample(9, pwatermark=0.9),
    "unreadable": sample(10) | {"jpg": jpeg(photograph(10))[:2000]},
    "caption_not_utf8": sample(11, b"caf\xe9 au lait on a table"),
    "caption_empty": sample(12, " \n"),
    "unpaired": {"txt": b"a dog without a picture", "json": b"{}"},
}
BORDERLINE = {  # samples that just pass
    "side": sample(21, size=(256, 256)),
    "aspect": sample(22, size=(768, 256)),
    "words": sample(23, "old brown dog"),
    "columns": sample(24, punsafe=0.5, pwatermark=0.8),
    "no_numbers": sample(25, punsafe="high", pwatermark=None),
    "latin": sample(26, "the word собака means dog in the Russian language of today, or so they say in the book"),
    "names": sample(27, "a tram in Rio de Janeiro near Le Corbusier's house"),
}


def test_every_rule_finds_its_sample_and_no_other(tmp_path, run_filter):
    good = {f"good_{name}": parts for name, parts in BORDERLINE.items()}
    folder = write_crawl(tmp_path, [FLAWED, good])
    tars = {path.name: path.read_bytes() for path in folder.glob("*.tar")}
    outcome = run_filter(folder, "--max_bad_fraction=1")
    assert read_reasons(folder) == {reason: [reason] for reason in FLAWED}
    assert {reason: count for reason, count in outcome.reasons.items() if count} == dict.fromkeys(FLAWED, 1)
    assert (outcome.samples, outcome.marked) == (len(FLAWED) + len(BORDERLINE), len(FLAWED))
    assert json.loads((folder / "filter.json").read_text())["reasons"] == outcome.reasons
    assert {path.name: path.read_bytes() for path in folder.glob("*.tar")} == tars


def test_a_rule_that_is_off_marks_nothing(tmp_path, run_filter):
    folder = write_crawl(tmp_path, [FLAWED])
    rules = "min_side max_aspect min_words max_words min_latin max_foreign max_unsafe max_watermark".split()
    off = [f"--{rule}=null" for rule in rules] + ["--boilerplate=[]"]
    outcome = run_filter(folder, "--max_bad_fraction=1", *off)
    always = {"unpaired", "unreadable", "caption_not_utf8", "caption_empty"}
    assert set(read_reasons(folder)) == always
    assert set(outcome.reasons) == always | {"duplicates", "near_duplicates"}


def test_training_leaves_marked_samples_out(tmp_path, run_filter):
    folder = write_crawl(tmp_path, [{"a": sample(1), "b": sample(2, "no")}, {"c": sample(3)}], instructions=True)
    run_filter(folder)
    assert Manifest.open(folder).keys.tolist() == [b"a", b"c"]


def test_copies_are_found_across_shards_and_the_first_key_stays(tmp_path, run_filter):
    scaled = photograph(1, (300, 260)).resize((600, 520))
    shards = [
        {"c": sample(1), "d": sample(2)},
        {"a": sample(1), "e": sample(1) | {"jpg": jpeg(photograph(1), quality=60)}},
        {"b": sample(1) | {"jpg": jpeg(scaled)}, "f": sample(3)},
    ]
    expected = {"c": ["duplicates"], "e": ["near_duplicates"], "b": ["near_duplicates"]}
    run_filter(write_crawl(tmp_path / "one", shards))
    assert read_reasons(tmp_path / "one") == expected
    run_filter(write_crawl(tmp_path / "other", shards[::-1]), "--workers=2")
    assert read_reasons(tmp_path / "other") == expected


def test_a_copy_of_a_sample_that_is_out_stays(tmp_path, run_filter):
    folder = write_crawl(tmp_path, [{"a": sample(1, "dog"), "b": sample(1), "c": sample(1), "d": sample(1)}])
    write_marks(folder / "00000.subset.jsonl", {}, "h", {"b": ["subset"]})
    run_filter(folder)
    assert read_reasons(folder) == {"a": ["min_words"], "d": ["duplicates"]}


def test_a_rewritten_caption_replaces_the_tars(tmp_path, run_filter):
    folder = write_crawl(tmp_path, [{"a": sample(1, " "), "b": sample(2), "c": sample(3, b"\xff")}])
    texts = {"a": "a brown dog on a lawn", "b": "dog", "c": ""}
    written = [{"key": k, "instruction": "x", "target_caption": "a cat", "source_caption": t} for k, t in texts.items()]
    write_instructions(folder / "00000.instructions.jsonl", written)
    run_filter(folder, "--max_bad_fraction=1")
    assert read_reasons(folder) == {"b": ["min_words"], "c": ["caption_not_utf8"]}


def test_flat_pictures_are_no_copies_of_each_other(tmp_path, run_filter):
    from PIL import Image

    flat = {colour: sample(1) | {"jpg": jpeg(Image.new("RGB", (300, 260), colour))} for colour in ("red", "navy")}
    run_filter(write_crawl(tmp_path, [flat]))
    assert read_reasons(tmp_path) == {}


def test_test_pictures_are_found_in_a_benchmark_and_in_any_folder(tmp_path, run_filter):
    write_emu_edit(tmp_path / "emu", [emu_row(n, image=jpeg(photograph(n))) for n in range(3)])
    (tmp_path / "mine/deep").mkdir(parents=True)
    photograph(7).resize((200, 170)).save(tmp_path / "mine/deep/x.png")
    crawl = [{"a": sample(1) | {"jpg": jpeg(photograph(1), 50)}, "b": sample(7), "c": sample(8)}]
    folder = write_crawl(tmp_path / "crawl", crawl)
    run_filter(folder, f"--decontaminate.emu_edit={tmp_path / 'emu'}", f"--decontaminate.mine={tmp_path / 'mine'}")
    assert read_reasons(folder) == {"a": ["decontaminate: emu_edit"], "b": ["decontaminate: mine"]}


def test_clip_rules(tmp_path, run_filter, tiny_clip_dir):
    """Compares with cosines computed here directly with CLIP."""
    import io

    import torch.nn.functional as F
    from PIL import Image

    from regionedit.encoders import FrozenCLIP
    from regionedit.images import to_tensor

    captions = {"a": "a red circle", "b": "a blue square left of a red ring", "c": "a star at the top"}
    samples = {key: sample(number, text) for number, (key, text) in enumerate(captions.items())}
    folder = write_crawl(tmp_path, [samples], instructions=True)
    clip = FrozenCLIP.load(f"local-dir:{tiny_clip_dir}")
    pictures = [
        Image.open(io.BytesIO(parts["jpg"])).resize((32, 32), Image.Resampling.BICUBIC) for parts in samples.values()
    ]
    texts = clip.encode_text(list(captions.values()))
    text_image = F.cosine_similarity(texts, clip.encode_image(to_tensor(pictures)).global_BD).tolist()
    targets = [f"a cat instead of {key}" for key in captions]
    text_text = F.cosine_similarity(texts, clip.encode_text(targets)).tolist()
    between = (sorted(text_image)[0] + sorted(text_image)[1]) / 2
    low, high = (sum(sorted(text_text)[i : i + 2]) / 2 for i in (0, 1))
    run_filter(
        folder, f"--encoders.clip=local-dir:{tiny_clip_dir}", "--encoders.clip_pretrained=null", "--device=cpu",
        "--batch=2", f"--min_text_image={between}", f"--min_text_text={low}", f"--max_text_text={high}",
    )  # fmt: skip
    expected: dict[str, list[str]] = {key: [] for key in captions}
    for key, picture_similarity, text_similarity in zip(captions, text_image, text_text, strict=True):
        expected[key] += ["min_text_image"] * (picture_similarity < between)
        expected[key] += ["min_text_text"] * (text_similarity < low) + ["max_text_text"] * (text_similarity > high)
    assert read_reasons(folder) == {key: reasons for key, reasons in expected.items() if reasons}


def test_running_again_skips_and_another_rule_reads_no_picture(tmp_path, run_filter, monkeypatch):
    folder = write_crawl(tmp_path, [{"a": sample(1, "old brown dog")}, {"b": sample(2)}])
    assert run_filter(folder).written == 2
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.marks.jsonl")}
    assert run_filter(folder).written == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.marks.jsonl")} == before
    monkeypatch.setattr(measurements, "_read", None)
    assert run_filter(folder, "--min_words=4").marked == 1
    assert run_filter(folder).marked == 0


def test_a_changed_shard_is_measured_again(tmp_path, run_filter):
    folder = write_crawl(tmp_path, [{"a": sample(1)}, {"b": sample(2)}])
    run_filter(folder)
    write_crawl(tmp_path, [{"a": sample(1, "dog")}])
    assert run_filter(folder).written == 1
    assert read_reasons(folder) == {"a": ["min_words"]}


def test_parts_only_measure_and_the_last_run_applies_the_rules(tmp_path, run_filter):
    folder = write_crawl(tmp_path, [{"a": sample(1)}, {"b": sample(1)}])
    for part in (0, 1):
        outcome = run_filter(folder, "--parts=2", f"--part={part}")
        assert (outcome.shards, outcome.samples) == (1, 0)
    assert not list(folder.glob("*.marks.jsonl")) and len(list(folder.glob("*.measured.safetensors"))) == 2
    assert run_filter(folder).marked == 1


def test_a_truncated_shard_is_reported_and_the_others_are_marked(tmp_path, run_filter):
    folder = write_crawl(tmp_path, [{"a": sample(1)}, {"b": sample(2, "dog")}, {}])
    tar = folder / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:9000])
    outcome = run_filter(folder)
    assert read_reasons(folder) == {"b": ["min_words"]} and not (folder / "00000.marks.jsonl").exists()
    assert list(outcome.broken) == ["00000"] and "truncated shard" in outcome.broken["00000"]
    assert outcome.too_bad(0.01).startswith("1 of 3 shards cannot be read") and outcome.too_bad(0.5) is None
    for tar in folder.glob("*.tar"):
        tar.write_bytes(b"no tar" * 1000)
    outcome = run_filter(folder)
    assert outcome.samples == 0 and "not an uncompressed tar" in outcome.too_bad(0.5)


def test_a_broken_sidecar_is_reported_in_one_line(tmp_path, run_filter):
    folder = write_crawl(tmp_path, [{"a": sample(1)}])
    for name in ("instructions", "subset", "marks"):
        path = folder / f"00000.{name}.jsonl"
        path.write_text("no JSON\n")
        with pytest.raises(ValueError, match=f"{path.name}.*header") as error:
            run_filter(folder)
        assert "\n" not in str(error.value)
        path.unlink()


def test_too_many_useless_samples_are_a_failure(tmp_path, run_filter):
    folder = write_crawl(tmp_path, [{"a": sample(1), "b": sample(2, " "), "c": sample(3, "dog")}])
    outcome = run_filter(folder)
    assert outcome.too_bad(0.01).startswith("1 of 3 samples cannot be used") and outcome.too_bad(0.34) is None


def test_a_shard_that_changes_while_it_is_read_is_read_again_or_reported(tmp_path, run_filter, monkeypatch):
    folder = write_crawl(tmp_path, [{"a": sample(1)}])
    read, changes = measurements._read, iter([True, False, True, True])

    def changing(tar, columns):
        found = read(tar, columns)
        if next(changes):
            os.utime(tar, ns=(0, tar.stat().st_mtime_ns + 1))
        return found

    monkeypatch.setattr(measurements, "_read", changing)
    assert measurements.measure(folder, "00000", ()) and len(measurements.load(folder, "00000")) == 1
    os.utime(folder / "00000.tar", ns=(0, 77))
    with pytest.raises(ValueError, match="00000.tar: changed while it was read"):
        measurements.measure(folder, "00000", ())


WRONG = {
    "--boilerplate=['(']": "boilerplate: '\\(' is not a regular expression",
    "--decontaminate.mine=nowhere": "decontaminate.mine: nowhere: no such folder",
    "--decontaminate.emu_edit=nowhere": "decontaminate.emu_edit: nowhere is neither a folder",
    "--near_duplicates=40": "near_duplicates: 40 bits",
    "--part=3": "part: 3 of 1",
    "--min_text_text=0.9 --max_text_text=0.8": "max_text_text: 0.8 is not above min_text_text, 0.9",
}


def test_a_wrong_argument_is_reported_in_one_line(tmp_path, run_filter):
    folder = write_crawl(tmp_path, [{"a": sample(1)}])
    for change, message in WRONG.items():
        with pytest.raises(ValueError, match=f"^{message}") as error:
            run_filter(folder, *change.split())
        assert "\n" not in str(error.value)


def test_the_command(tmp_path, monkeypatch, capsys):
    folder = write_crawl(tmp_path, [{"a": sample(1), "b": sample(2, "dog"), "c": sample(3) | {"jpg": b"no"}}])
    arguments = ["filter.py", "--config", "configs/filter.yaml", "--data", str(folder)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--max_bad_fraction", "0.5"])
    filtering.main()
    printed = capsys.readouterr().out
    assert "2 of 3 samples are marked" in printed
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("min_words")] == ["1"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        filtering.main()
    assert stop.value.code == 1 and "1 of 3 samples cannot be used" in capsys.readouterr().err
