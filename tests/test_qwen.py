"""The shipped language model of the microworld, really generating: through the describer, and behind its server."""

import json
import re
import subprocess
import sys

import pytest
from PIL import Image

import infer
from regionedit.config import EndpointConfig, TwoStageConfig
from regionedit.describe import require_describer
from regionedit.describe.answers import TargetCaption, ask
from regionedit.describe.chat import prompt
from regionedit.describe.endpoint import ChatEndpoint
from regionedit.microworld.renderer import render
from regionedit.microworld.scene import Background, Scene, Thing
from regionedit.microworld.splits import sample

pytestmark = pytest.mark.microworld
SCENE = Scene(Background("gray", "plain"), (Thing("circle", "red", 20, 20, 10), Thing("square", "blue", 44, 44, 9)))


@pytest.fixture(scope="module")
def describer():
    return require_describer("two_stage").load(TwoStageConfig(device="cpu", cache=None))


def target_chats(count):
    edits = [sample("validation", 0, index) for index in range(count)]
    question = prompt("target_caption")
    return edits, [question.chat(caption=e.source_caption, instruction=e.instruction) for e in edits]


def test_target_captions_of_held_out_scenes(describer):
    edits, chats = target_chats(50)
    answers = ask(describer.language, chats, TargetCaption)
    right = [getattr(t, "target_caption", None) == e.target_caption for t, e in zip(answers, edits, strict=True)]
    assert sum(right) >= 40


@pytest.mark.parametrize(
    ("instructions", "there", "gone"),
    [
        (("make the red circle green",), "green circle", "red"),
        (("replace the blue square with a yellow triangle",), "yellow triangle", "square"),
        (("remove the red circle",), "blue square", "circle"),
        (("make the red circle green", "remove the blue square"), "green circle", "square"),
    ],
)
def test_pictures_are_described_in_two_stages(describer, instructions, there, gone):
    (captions,) = describer.describe([Image.fromarray(render([SCENE])[0])], [instructions])
    assert captions.source == "a red circle and a blue square on a plain gray background"
    assert there in captions.target and gone not in captions.target


def test_keywords(describer):
    assert describer.keyword("make the red circle green") == "red circle"
    assert describer.keyword("add a pink cross left of the blue square") == "pink cross"


def test_an_edit_with_captions_of_the_language_model(tmp_path):
    Image.fromarray(render([SCENE])[0]).save(tmp_path / "in.png")
    words = [
        "--config", "configs/edit_inpaint_microworld.yaml", "--describe.name", "two_stage",
        "--describe.cache", tmp_path,
        "--image", tmp_path / "in.png", "--instruction", "make the red circle green; remove the blue square",
        "--out", tmp_path / "out", "--device", "cpu", "--generator.num_inference_steps", "2",
    ]  # fmt: skip
    assert infer.main([str(word) for word in words]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["captions"]["from"] == "two_stage" and "green circle" in record["captions"]["target"]
    assert "square" not in record["captions"]["target"]
    assert record["models"]["language"]["sha256"] and len(list(tmp_path.glob("??/*.json"))) == 1


@pytest.fixture(scope="module")
def address():
    server = subprocess.Popen(
        [sys.executable, "experiments/serve_qwen.py", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        yield re.search(r"http://127\.0\.0\.1:\d+/v1", server.stdout.readline())[0]
    finally:
        server.terminate()
        server.wait(20)


def test_the_server_says_what_the_model_says(address, describer):
    _, chats = target_chats(12)
    config = EndpointConfig(endpoint=address, endpoint_model="qwen", concurrency=12, max_tokens=256)
    answers = ChatEndpoint(config).answer(chats)
    assert answers == describer.language.answer(chats)


def test_the_server_refuses_what_it_cannot_answer(address):
    import urllib.error
    import urllib.request

    def post(body) -> tuple[int, str]:
        request = urllib.request.Request(f"{address}/chat/completions", body, {"Content-Type": "application/json"})
        try:
            return 200, urllib.request.urlopen(request, timeout=60).read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    chat = {"model": "qwen", "messages": [{"role": "user", "content": "Instruction: remove the ring"}]}
    status, reply = post(json.dumps(chat | {"temperature": 0, "max_tokens": 2}).encode())
    assert status == 200 and json.loads(reply)["choices"][0]["finish_reason"] == "length"
    for body, status, says in (
        (b"{", 400, "JSON"),
        (json.dumps(chat | {"messages": []}).encode(), 400, "messages"),
        (json.dumps(chat | {"model": "gpt"}).encode(), 404, "gpt"),
        (json.dumps(chat | {"stream": True}).encode(), 400, "stream"),
        (json.dumps(chat | {"messages": [{"role": "user", "content": "x " * 999}]}).encode(), 400, "tokens"),
    ):
        code, reply = post(body)
        assert code == status and says in json.loads(reply)["error"]["message"]
