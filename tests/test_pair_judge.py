"""Pairs of pictures judged in both orders by a server that also fails, rambles and favours a place."""

import asyncio
import base64
import io
import json
from dataclasses import replace

import pytest
import yaml
from aiohttp import web
from PIL import Image

from regionedit.config import PairJudgeConfig
from regionedit.evaluation import judge
from regionedit.evaluation.benchmarks import GEdit
from regionedit.evaluation.pair_judge import judge_pairs, main
from regionedit.files import write_atomic
from regionedit.images import png
from tests.benchmark_fixtures import write_gedit
from tests.chat_servers import serving
from tests.evaluation_folders import evaluation

OURS, THEIRS = (200, 0, 0), (0, 0, 200)
PARTS = [{"text": "Compare.\n**Editing Instruction:** {{ instruction }}\nOriginal:\n"}]
PARTS += [{"image": {"source": "input_image"}}, {"text": "Image A:\n"}]
PARTS += [{"image": {"source": "edited_images", "index": 0}}, {"text": "Image B:\n"}]
PARTS += [{"image": {"source": "edited_images", "index": 1}}]


pytestmark = pytest.mark.filterwarnings("ignore:data")


@pytest.fixture
def config(tmp_path, monkeypatch) -> PairJudgeConfig:
    """Two finished evaluations of three cases in which our pictures are red and theirs blue."""
    monkeypatch.setattr(judge, "BACKOFF", 0.01)
    cases = list(GEdit(data := write_gedit(tmp_path / "gedit")))
    for name, colour in (("ours", OURS), ("theirs", THEIRS)):
        folder = evaluation(tmp_path / name, {}, [case.id for case in cases], benchmark="gedit")
        stored = {"data": str(data), "limit": 0, "ids": None, "pictures": None}
        (folder / "config.yaml").write_text(yaml.safe_dump(stored))
        for case in cases:
            write_atomic(folder / f"pictures/{case.id}.png", png(Image.new("RGB", (24, 16), colour)))
    (tmp_path / "v1.yaml").write_text(yaml.safe_dump({"system_prompt": "You are careful.", "user_prompt": PARTS}))
    made = PairJudgeConfig(str(tmp_path / "ours"), str(tmp_path / "theirs"), str(tmp_path / "out"))
    return replace(made, vlm_judge=replace(made.vlm_judge, prompts=str(tmp_path / "v1.yaml"), timeout=1, attempts=2))


def at(config: PairJudgeConfig, url: str) -> PairJudgeConfig:
    return replace(config, vlm_judge=replace(config.vlm_judge, endpoint=url))


def about(body: dict) -> tuple[str, tuple]:
    """The instruction, and the colour of image A."""
    content = body["messages"][1]["content"]
    pictures = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    shown = Image.open(io.BytesIO(base64.b64decode(pictures[1].removeprefix("data:image/png;base64,"))))
    return content[0]["text"].split("Instruction:** ")[1].split("\n")[0], shown.getpixel((0, 0))


def prefers(colour: tuple):
    return lambda body, before: f'```json\n{{"winner": "Image {"A" if about(body)[1] == colour else "B"}"}}\n```'


@pytest.mark.parametrize(("colour", "result"), [(OURS, "win"), (THEIRS, "loss")])
def test_a_preferred_picture_wins_from_either_place_and_is_shown_as_the_published_script_does(config, colour, result):
    with serving(prefers(colour)) as server:
        found = judge_pairs(at(config, server.url))
    assert found["shares"][result] == {"mean": 1, "low": 1, "high": 1, "n": 3} and len(server.bodies) == 6
    assert found["answers"] == {"readable": 6} and found["swayed"] == 0
    body = next(body for body in server.bodies if about(body) == ("colour it 0", OURS))
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("PVC-Judge", 0, 512)
    assert body["messages"][0] == {"role": "system", "content": "You are careful."}
    told = [part.get("text", "picture") for part in body["messages"][1]["content"]]
    first = "Compare.\n**Editing Instruction:** colour it 0\nOriginal:"
    assert told == [first, "picture", "\n", "Image A:", "picture", "\n", "Image B:", "picture"]


async def unruly(body: dict, before: int):
    """By case: always image A, late at first; a ramble; an answer in one order and an error in the other."""
    what, colour = about(body)
    if what == "colour it 0":
        await asyncio.sleep(0 if before else 1.5)
        return '{"winner": "Image A"}'
    if what == "colour it 1":
        return "Both images are fine, " * 50
    return '{"winner": "image_a"}' if colour == OURS else web.Response(status=500, text="out of memory")


def test_nothing_is_dropped_and_only_what_failed_is_asked_again(config, tmp_path):
    with serving(unruly) as server:
        found = judge_pairs(at(config, server.url))
    assert list(found["cases"].values()) == ["tie", "unanswered", "unanswered"] and found["swayed"] == 1
    assert found["answers"] == {"readable": 3, "unreadable": 2, "failed": 1}
    assert sum(share["mean"] for share in found["shares"].values()) == pytest.approx(1)
    ids = list(found["cases"])
    (stored,) = (tmp_path / "out/answers").glob(f"pair-PVC-Judge-*/{ids[1]}.json")
    stored = json.loads(stored.read_text())
    assert [answer["text"] for answer in stored["answers"]] == ["Both images are fine, " * 50] * 2
    assert len(stored["shown"]) == 4 and stored["judge"]["system"] == "ours" and stored["judge"]["temperature"] == 0

    with serving(prefers(OURS)) as server:
        assert judge_pairs(at(config, server.url))["cases"][ids[2]] == "win" and len(server.bodies) == 1
    (tmp_path / f"theirs/pictures/{ids[2]}.png").unlink()
    write_atomic(tmp_path / f"theirs/pictures/{ids[0]}.png", png(Image.new("RGB", (24, 16), "white")))
    arguments = ["--system", config.system, "--against", config.against, "--out", config.out]
    assert main([*arguments, "--vlm_judge.prompts", config.vlm_judge.prompts]) == 0  # no server is there
    again = json.loads((tmp_path / "out/pair_judge.json").read_text())
    assert list(again["cases"].values()) == ["unanswered", "unanswered", "no picture"] and again["n"] == 3
    assert "| ours | theirs | 3 | 0.000 " in (tmp_path / "out/pair_judge.md").read_text()


def test_wrong_settings_are_named(config, tmp_path):
    with pytest.raises(ValueError, match="^vlm_judge.endpoint: needed, because .*out has no answers"):
        judge_pairs(config)
    with pytest.raises(ValueError, match="^vlm_judge.prompts: give the file with the prompt, src/prompts/assets/vlm"):
        judge_pairs(replace(config, vlm_judge=replace(config.vlm_judge, prompts=None)))
    (tmp_path / "v1.yaml").write_text(yaml.safe_dump({"system_prompt": "", "user_prompt": PARTS[:-1]}))
    with pytest.raises(ValueError, match="^vlm_judge.prompts: .*v1.yaml lacks a picture or {{ instruction }}"):
        judge_pairs(config)
    evaluation(tmp_path / "theirs", {}, ["another"], benchmark="gedit")
    (tmp_path / "v1.yaml").write_text(yaml.safe_dump({"system_prompt": "", "user_prompt": PARTS}))
    with pytest.raises(ValueError, match="^against: theirs was not evaluated on the cases of ours"):
        judge_pairs(config)
