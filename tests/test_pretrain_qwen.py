"""The language model's lessons: right answers, disjoint from those that score it, in tokens that lose nothing."""

import json

import lessons
import pretrain_qwen
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regionedit.describe.chat import prompt
from regionedit.keywords import keyword_span
from regionedit.microworld import commands


@pytest.fixture(scope="module")
def tokenizer():
    return pretrain_qwen.build_tokenizer()


def test_lessons_are_a_function_of_their_number():
    assert lessons.lessons(6, 30, 20) == lessons.lessons(6, 0, 60)[30:50]
    assert not set(lessons.lessons(lessons.TRAIN_SEED, 0, 40)) & set(lessons.lessons(lessons.HELD_OUT_SEED, 0, 40))


def test_questions_are_those_of_the_prompts():
    question = lessons.target_lesson(6, 0).question
    caption, instruction = (line.partition(": ")[2] for line in question.split("\n"))
    assert question == prompt("target_caption").chat(caption=caption, instruction=instruction).user
    question = lessons.keyword_lesson(6, 0).question
    assert question == prompt("keyword").chat(instruction=question.partition(": ")[2]).user


def test_a_target_caption_is_that_of_the_instructions():
    several = 0
    for index in range(150):
        lesson = lessons.target_lesson(6, index)
        source, texts = (line.partition(": ")[2] for line in lesson.question.split("\n"))
        target = json.loads(lesson.answer)["target_caption"]
        meant = [commands.parse(text) for text in texts.split("; ")]
        several += len(meant) > 1
        for command in meant:
            if command.kind == "remove" and command.named[0] and len(meant) == 1:
                gone = " ".join(command.named)
                assert source.count(gone) > target.count(gone) or source.count(gone) == 0  # the last: nothing to do
            if command.kind in ("replace", "add") and len(meant) == 1:
                assert " ".join(command.new) in target and " ".join(command.new) not in source
    assert 15 < several < 60


@pytest.mark.parametrize("operation", ["replace", "recolour", "add", "remove", "background", "noop"])
def test_written_edits_pass_the_check_that_scores_them_and_false_ones_do_not(operation):
    for index in range(40):
        edit, answer, _ = lessons.written_edit(lessons.HELD_OUT_SEED, index, operation)
        row = pretrain_qwen.read(json.dumps(answer), operation)
        assert row == answer and pretrain_qwen.agrees(row, edit)
        assert keyword_span(row["instruction"], row["object"])
        assert (row["target_caption"] == edit.source_caption) == (operation == "noop")
        false = edit.source_caption if operation != "noop" else f"a pink ring and {edit.source_caption}"
        if commands.parse(row["instruction"]).kind not in ("enlarge", "shrink"):  # sizes are not in the check
            assert not pretrain_qwen.agrees(row | {"target_caption": false}, edit)
        assert not pretrain_qwen.agrees(row | {"instruction": "make it pretty"}, edit)
        assert pretrain_qwen.read(json.dumps(row)[:-3], operation) is None
        assert pretrain_qwen.read(json.dumps(row), "style") is None
        assert pretrain_qwen.read(json.dumps(row | {"x": "y"}), operation) is None


WORLD = "a red circle and a large cyan triangle on a striped brown background"


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=80))
def test_any_text_comes_back_from_its_tokens_and_words_of_the_world_are_single_ones(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=False) == text
    assert len(tokenizer(WORLD).input_ids) == len(WORLD.split())


def test_only_answers_are_learned_and_the_template_passes_on_the_last_question_alone(tokenizer):
    chats = [lessons.Lesson("one", '{"a": "b"}'), lessons.Lesson("a longer question", '{"keyword": "ring"}')]
    ids_BT, labels_BT = pretrain_qwen.batch(tokenizer, chats)
    for row, chat in enumerate(chats):
        learned = [i for i in labels_BT[row].tolist() if i >= 0]
        assert tokenizer.decode(learned) == chat.answer + pretrain_qwen.END
        whole = tokenizer.decode([i for i in ids_BT[row].tolist() if i != tokenizer.pad_token_id])
        messages = [{"role": "system", "content": "the task"}, {"role": "user", "content": chat.question}]
        prompt_text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert whole == prompt_text + chat.answer + pretrain_qwen.END and "task" not in whole
    assert torch.equal(ids_BT[labels_BT >= 0], labels_BT[labels_BT >= 0])


def test_transformers_loads_the_folder(tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = pretrain_qwen.Qwen2ForCausalLM(pretrain_qwen.configuration(tokenizer)).eval()
    chats = [pretrain_qwen.prompt_of(tokenizer, "Caption: a red ring\nInstruction: x")]
    ids_BT = tokenizer(chats, return_tensors="pt").input_ids
    expected = model(ids_BT).logits
    pretrain_qwen.save(model, tokenizer, {"target_exact": 0.0}, tmp_path / "qwen")
    again = AutoTokenizer.from_pretrained(tmp_path / "qwen")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "qwen").eval()
    assert again(chats).input_ids == ids_BT.tolist() and again.chat_template == tokenizer.chat_template
    assert loaded.dtype == torch.float32 and loaded.config.model_type == "qwen2"
    torch.testing.assert_close(loaded(ids_BT).logits, expected, atol=2e-2, rtol=0)
    assert sum(path.stat().st_size for path in (tmp_path / "qwen").iterdir()) < 4 << 20
