"""Language models as writers: a tiny random Qwen2 by transformers, and vLLM's interface by a module that stands in."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from prompt_file import load_prompt
from write_config import EngineConfig, SamplingConfig, WriteConfig
from writer import Ask
from writers import WRITERS, operation_mix, require_writer

CAPTIONS = ("a dog", "a red bicycle by a wall and a lighthouse", "two boats", "a sofa", "a dog on a sofa")


def asks(attempt: int = 0) -> list[Ask]:
    prompt = load_prompt("instructions")
    return [
        Ask(f"k{n}", text, "add", None, prompt.messages(operation="add", wording="plain", caption=text), n, attempt)
        for n, text in enumerate(CAPTIONS)
    ]


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory):
    """A Qwen2ForCausalLM folder, width 16, whose words are letters; its chat template tells the last message alone."""
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    letters = ["<|endoftext|>", "<unk>", *map(chr, range(32, 127))]
    tokenizer = Tokenizer(models.WordLevel({letter: n for n, letter in enumerate(letters)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", unk_token="<unk>")
    made.chat_template = "{{ messages[-1]['content'] }}"
    folder = tmp_path_factory.mktemp("qwen")
    made.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        shape = Qwen2Config(vocab_size=len(letters), num_key_value_heads=1, eos_token_id=0, bos_token_id=None, **size)
        Qwen2ForCausalLM(shape).save_pretrained(folder)
    return folder


def by_transformers(folder, tokens: int = 12, batch: int = 2, **changes) -> list:
    settings = {"temperature": 1.0, "top_p": 1.0, "max_tokens": tokens} | changes
    made = WriteConfig(
        writer="transformers",
        model=str(folder),
        sampling=SamplingConfig(**settings),
        local=EngineConfig(device="cpu", batch=batch),
    )
    return require_writer("transformers").load(made).write(asks())


def test_each_seed_samples_for_itself_whatever_it_is_batched_with(tiny_qwen):
    one, two, five = ([a.text for a in by_transformers(tiny_qwen, batch=batch)] for batch in (1, 2, 5))
    assert one == two == five and len(set(one)) == 5
    greedy, again, narrow = (
        [a.text for a in by_transformers(tiny_qwen, **how)]
        for how in ({"temperature": 0.0}, {"temperature": 0.0, "batch": 5}, {"top_p": 1e-6})
    )
    assert greedy == again == narrow != one


def test_an_answer_that_does_not_end_is_told(tiny_qwen):
    failures = {answer.failure for answer in by_transformers(tiny_qwen, tokens=2)}
    assert failures == {"answer: cut off at sampling.max_tokens"}


def test_the_weights_are_part_of_the_header_and_their_place_is_not(tiny_qwen, tmp_path):
    import shutil

    copy = shutil.copytree(tiny_qwen, tmp_path / tiny_qwen.name)
    kind = require_writer("transformers")
    one, two = (kind.identity(WriteConfig(model=str(folder))) for folder in (tiny_qwen, copy))
    assert one == two and len(one["revision"]) == 64


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="^model: .*cannot be loaded"):
        by_transformers(tmp_path)


# ----------------------------------------------------------------------------------------------------------------
# vLLM


@pytest.fixture
def vllm(monkeypatch):
    """A module of vllm's names that notes what it is given."""
    seen = SimpleNamespace(engines=[], chats=[])

    class LLM:
        def __init__(self, **settings):
            seen.engines.append(settings)

        def chat(self, messages, parameters, use_tqdm):
            seen.chats.append((messages, parameters))
            made = ((f"answer {p.seed}", "length" if p.seed == 4 else "stop") for p in parameters)
            return [SimpleNamespace(outputs=[SimpleNamespace(text=t, finish_reason=why)]) for t, why in made]

    module, parameters = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    module.LLM, module.SamplingParams = LLM, lambda **named: SimpleNamespace(**named)
    parameters.StructuredOutputsParams = lambda **named: SimpleNamespace(**named)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", parameters)
    return seen


def test_vllm_is_asked_for_everything_at_once_with_a_seed_each(vllm):
    writer = require_writer("vllm").load(WriteConfig(revision="abc"))
    answers = writer.write(asks())
    engine = vllm.engines[0]
    assert engine["model"] == "Qwen/Qwen2.5-7B-Instruct" and engine["revision"] == "abc"
    assert engine["enable_prefix_caching"] is True
    messages, parameters = vllm.chats[0]
    assert len(vllm.chats) == 1 and [p.seed for p in parameters] == [0, 1, 2, 3, 4]
    assert len({chat[0]["content"] for chat in messages}) == 1  # the prefix that is cached
    assert json.loads(messages[1][1]["content"])["caption"] == CAPTIONS[1]
    assert parameters[0].temperature == 0.7 and "instruction" in parameters[0].structured_outputs.json["properties"]
    assert [a.text for a in answers[:4]] == [f"answer {n}" for n in range(4)]
    assert answers[4].failure == "answer: cut off at sampling.max_tokens"
    writer.write(asks(attempt=1))
    assert vllm.chats[1][1][0].temperature == 1.0


def test_given_instructions_need_another_schema(vllm):
    writer = require_writer("vllm").load(WriteConfig(source="instructions"))
    writer.write(asks())
    assert "instruction" not in vllm.chats[0][1][0].structured_outputs.json["properties"]


def test_without_vllm_there_is_a_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ValueError, match=r"regionedit\[vllm\].* openai or transformers"):
        require_writer("vllm").load(WriteConfig())


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_says_what_it_writes_and_what_decides_its_answers(name):
    config = WriteConfig(writer=name, model="Qwen/none")
    assert sum(operation_mix(config).values()) == pytest.approx(1)
    json.dumps(require_writer(name).identity(config))
