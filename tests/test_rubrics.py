"""What a judge is asked, word for word, and how its answers are read, including the odd ones that models give."""

import json

import pytest

from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.rubrics import RUBRICS, ImgEdit, Unreadable, VieScore
from tests.metric_cases import case, flat

SEMANTICS = "8f529562c2f89f8db51a3f7cc4d487686f676909c21010b67b0e65ec78150de5"
QUALITY = "2473ff2c7406e06545c5c039ceb039ff2604ebacf150868a48f0bf07c9e733b0"


@pytest.fixture
def prompts(tmp_path):
    """A file in the form of ImgEdit's prompts.json."""
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({kind: f"Rate this {kind}: <edit_prompt>." for kind in ImgEdit.kinds}))
    return str(path)


def test_viescores_prompts_are_the_published_ones_and_only_the_first_shows_the_source():
    source, edited = flat(10, 8), flat(20, 16)
    semantics, quality = VieScore().questions(Outcome(case(source, instruction="paint it {red}"), edited))
    assert (semantics.prompt, quality.prompt) == (SEMANTICS, QUALITY)
    assert semantics.text.endswith("Editing instruction: paint it {red}\n") and "paint" not in quality.text
    assert [p.getpixel((0, 0))[0] for p in semantics.pictures] == [10, 20]
    assert [p.getpixel((0, 0))[0] for p in quality.pictures] == [20]
    assert {p.size for p in (*semantics.pictures, *quality.pictures)} == {(8, 8)}  # the edited one is resized


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"score": [8, 6], "reasoning": "fine"}', 6),
        ('Sure!\n```json\n{\n"score" : [7,\n 9],\n"reasoning" : "a\nb"\n}\n```\nAnything else?', 7),
        ('{"score": 5, "reasoning": ""}', 5),
        ('{"score": [4.5, 10]}', 4.5),
        ('||V^=^V||{"score": [3]}||V^=^V||', 3),
        ("[6, 0]", 0),
        ('{"score": [8, 6], "reasoning": "cut', 6),
        ("My scores are [6,9].", 6),
        (" 10\n", 10),
    ],
)
def test_viescores_answers_are_read_in_every_published_form(answer, score):
    assert VieScore().read("semantics", answer) == score


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I cannot rate this picture.",
        "The success is 8 and the overediting is 9.",
        "11",
        '{"score": []}',
        '{"score": [8, 6, 4]}',
        '{"score": [8, 11]}',
        '{"score": [-1, 5]}',
        '{"score": [true, 5]}',
        '{"score": ["8", 5]}',
        '{"score": [NaN, 5]}',
        '{"rating": [8, 6]}',
        "first [8, 6], then [7, 6]",
        '{"score": [8, 6], "reasoning": "a "quote""}',
        "[8, 6, 4]",
        "[08, 6]",
        "[٣, ٤]",
        f"[{'9' * 5000}, 6]",
    ],
)
def test_an_answer_without_a_score_is_unreadable_and_never_a_guess(answer):
    with pytest.raises(Unreadable):
        VieScore().read("semantics", answer)


def test_viescores_overall_score_is_the_geometric_mean():
    assert VieScore().scores({"semantics": 4, "quality": 9}) == {"semantics": 4, "quality": 9, "overall": 6}


def test_imgedit_asks_the_prompt_of_the_edits_type(prompts):
    outcome = Outcome(case(flat(10), instruction="swap it"), flat(20, 4))  # its operation is replace
    (question,) = ImgEdit(prompts).questions(outcome)
    assert question.text == "Rate this replace: swap it." and [p.size for p in question.pictures] == [(8, 8), (4, 4)]
    assert len(set(ImgEdit(prompts).identity().values())) == 10


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("Brief reasoning: fine.\nPrompt Compliance: 5\nVisual Naturalness: 4\nPhysical & Detail Integrity: 4", 4.33),
        ("  Prompt Compliance: 3  ", 3),
        ("Prompt Compliance: 2\nVisual Naturalness: 3/5", 2),
        ("**Prompt Compliance:** 4", None),
        ("Prompt Compliance: 4.", None),
        ("Prompt Compliance: 4.5", None),
        ("Prompt Compliance: 9", None),
        (f"Prompt Compliance: {'4' * 5000}", None),
        ("a: b: 3", None),
        ("Prompt Compliance: ²", None),
        ("", None),
    ],
)
def test_imgedits_lines_are_read_as_its_script_reads_them(prompts, answer, score):
    rubric = ImgEdit(prompts)
    if score is None:
        with pytest.raises(Unreadable):
            rubric.read("rubric", answer)
    else:
        assert rubric.scores({"rubric": rubric.read("rubric", answer)}) == {"overall": score}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "give the file with the rubric, Benchmark/Basic/prompts.json"),
        ("not JSON", "is not Benchmark/Basic/prompts.json"),
        ("{}", "is not Benchmark/Basic/prompts.json"),
        (json.dumps(dict.fromkeys(ImgEdit.kinds, "rate it")), "replace has no <edit_prompt>"),
    ],
)
def test_a_missing_or_wrong_rubric_file_is_named(tmp_path, content, said):
    path = tmp_path / "prompts.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match="^vlm_judge.prompts: ") as error:
        RUBRICS["imgedit"](None if content is None else str(path))
    assert said in str(error.value)
