"""The cache of answers on disk: keyed by request and model, bounded, safe with damaged files and several processes."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from regionedit.describe import one_call
from regionedit.describe.cache import FOLDERS, AnswerCache
from regionedit.describe.one_call import OneCall
from regionedit.describe.two_stage import TwoStage
from tests.test_answers import Scripted

PICTURE = Image.new("RGB", (8, 8), "red")
BOTH = json.dumps({"source_caption": "a red wall", "target_caption": "a blue wall"})


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_answer_is_found_by_the_whole_request(tmp_path):
    cache = AnswerCache(tmp_path / "new", 1000)
    assert cache.get(["picture", ["x"]]) is None and not (tmp_path / "new").exists()
    cache.put(["picture", ["x"]], {"source": "é", "target": "b"})
    assert cache.get(("picture", ("x",))) == {"source": "é", "target": "b"}
    assert cache.get(["picture", ["y"]]) is None and cache.get(["picture", ["x"], "z"]) is None
    assert len(files(tmp_path)) == 1


DAMAGED = (
    b"", b"[]", b"\xff", b'{"asked": ["k"], "answ', b'{"asked": ["k"], "answer": 3}',
    b'{"asked": ["k"], "answer": {"a": 1}}', b'{"asked": ["j"], "answer": {"a": "b"}}',
)  # fmt: skip


def test_a_damaged_file_is_ignored_and_replaced(tmp_path):
    cache = AnswerCache(tmp_path, 1000)
    for content in DAMAGED:
        cache.put(["k"], {"a": "b"})
        assert cache.get(["k"]) == {"a": "b"}
        (file,) = files(tmp_path)
        file.write_bytes(content)
        assert cache.get(["k"]) is None, content


def test_the_oldest_answers_are_deleted_at_the_limit(tmp_path):
    cache = AnswerCache(tmp_path, FOLDERS * 2 - 5)  # two in each folder, rounded up
    numbers = [number for number in range(3000) if cache._path([number]).parent.name == "00"][:5]
    cache.put(["elsewhere"], {"a": "b"})
    half = tmp_path / "00" / ".killed.123.part"  # the file of a killed process is removed by age as well
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"x")
    os.utime(half, (0, 0))
    for number in numbers:
        cache.put([number], {"a": "b"})
    assert [cache.get([number]) is not None for number in numbers] == [False, False, False, True, True]
    assert cache.get(["elsewhere"]) and not half.exists()


def test_processes_share_a_folder(tmp_path):
    program = (
        "import sys; from regionedit.describe.cache import AnswerCache\n"
        "cache = AnswerCache(sys.argv[1], 100000)\n"
        "for n in range(50):\n"
        "    cache.put([n], {'a': str(n)})\n"
        "    assert cache.get([n]) == {'a': str(n)}"
    )
    both = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    cache = AnswerCache(tmp_path, 100_000)
    assert [cache.get([n]) for n in range(50)] == [{"a": str(n)} for n in range(50)]
    assert len(files(tmp_path)) == 50


def test_a_model_is_called_once_for_a_picture_its_instructions_and_its_prompt(tmp_path, monkeypatch):
    cache = AnswerCache(tmp_path, 1000)
    question = "Instruction: make it blue; remove x"
    first, second = Scripted({question: [BOTH]}), Scripted({})
    for model in (first, second):
        (captions,) = OneCall(model, cache).describe([PICTURE], [("make it blue", "remove x")])
        assert (captions.source, captions.target) == ("a red wall", "a blue wall")
    other = Scripted({question: [BOTH]})
    other.identity = {"name": "another"}
    OneCall(other, cache).describe([PICTURE], [("make it blue", "remove x")])
    OneCall(Scripted({question: [BOTH]}), cache).describe([PICTURE.resize((9, 9))], [("make it blue", "remove x")])
    assert len(first.questions) == len(other.questions) == 1 and not second.questions and len(files(tmp_path)) == 3
    original, changed = one_call.prompt, Scripted({question: [BOTH]})
    monkeypatch.setattr(one_call, "prompt", lambda name: replace(original(name), sha256="another"))
    OneCall(changed, cache).describe([PICTURE], [("make it blue", "remove x")])
    assert len(changed.questions) == 1


def test_failures_are_not_cached(tmp_path):
    cache = AnswerCache(tmp_path, 1000)
    model = Scripted({"Instruction: x": ["no", "no", BOTH], "Instruction: y": [BOTH]})
    describer = OneCall(model, cache)
    with pytest.raises(ValueError, match="scripted gave no source_caption, target_caption"):
        describer.describe([PICTURE, PICTURE], [("x",), ("y",)])
    assert len(files(tmp_path)) == 1
    assert describer.describe([PICTURE, PICTURE], [("x",), ("y",)])[0].target == "a blue wall"


def test_two_stages_and_the_first_fails_for_one_picture(tmp_path):
    class Seeing(Scripted):
        def answer(self, chats, again=False):
            self.sizes = [chat.picture.size for chat in chats]
            return ['{"source_caption": "a wall"}' if w == 8 else "?" for w, _ in self.sizes]

    language = Scripted({"Caption: a wall\nInstruction: x": ['{"target_caption": "a door"}']})
    describer = TwoStage(Seeing({}), language, AnswerCache(tmp_path, 1000))
    with pytest.raises(ValueError, match="gave no source_caption"):
        describer.describe([PICTURE, PICTURE.resize((9, 9))], [("x",), ("x",)])
    (captions,) = describer.describe([PICTURE], [("x",)])
    assert (captions.source, captions.target) == ("a wall", "a door") and len(language.questions) == 1


@pytest.mark.parametrize("kind", [OneCall, lambda model, cache: TwoStage(model, Scripted({}), cache)])
def test_source_captions_are_requested_once_and_without_an_instruction(kind, tmp_path):
    cache = AnswerCache(tmp_path, 1000)
    first, second = (Scripted({"Describe the picture.": ['{"source_caption": "a wall"}'] * 2}) for _ in range(2))
    assert kind(first, cache).source_captions([PICTURE, PICTURE.resize((9, 9))]) == ["a wall", "a wall"]
    assert kind(second, cache).source_captions([PICTURE]) == ["a wall"] and not second.questions
    (lost,) = kind(Scripted({"Describe the picture.": ["no", "no"]}), None).source_captions([PICTURE])
    assert isinstance(lost, ValueError) and "source_caption" in str(lost)


@pytest.mark.parametrize(
    ("answer", "keyword"),
    [("black cat", "black cat"), ("Cat", "cat"), (" cat ", "cat"), ("dog house", None), ("ca", None)],
)
def test_keywords_are_words_of_the_instruction(answer, keyword, tmp_path):
    text = "replace the black cat with a dog"
    model = Scripted({f"Instruction: {text}": [json.dumps({"keyword": answer})]})
    describer = OneCall(model, AnswerCache(tmp_path, 1000))
    assert [describer.keyword(text), describer.keyword(text)] == [keyword, keyword] and len(model.questions) == 1
    assert OneCall(Scripted({}), AnswerCache(tmp_path, 1000)).keyword(text) == keyword


def test_a_model_without_a_keyword_leaves_it_to_the_rule():
    model = Scripted({"Instruction: x": ["prose", "prose"]})
    with pytest.warns(UserWarning, match="the rule has to find it; describe: scripted gave no keyword"):
        assert OneCall(model).keyword("x") is None
