"""Chat models by transformers: random tiny ones of the real classes, so that loading, templates and generation run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from regionedit.config import TwoStageConfig
from regionedit.describe import require_describer
from regionedit.describe.chat import Chat
from regionedit.describe.local_models import LanguageModel, VisionLanguageModel
from tests.tiny_language_models import write_language_model, write_vision_language_model

CHATS = [Chat("You write.", "one"), Chat("You write.", "a much longer question than the other one")]


@pytest.fixture(scope="module")
def language_folder(tmp_path_factory) -> Path:
    return write_language_model(tmp_path_factory.mktemp("language"))


@pytest.fixture(scope="module")
def language(language_folder) -> LanguageModel:
    return LanguageModel(config(language=str(language_folder)))


@pytest.fixture(scope="module")
def vision_folder(tmp_path_factory) -> Path:
    return write_vision_language_model(tmp_path_factory.mktemp("vision"))


def config(**changes) -> TwoStageConfig:
    return TwoStageConfig(device="cpu", max_tokens=6, cache=None, **changes)


def test_chats_are_answered_together_as_alone(language):
    together = language.answer(CHATS)
    assert together == [language.answer([chat])[0] for chat in CHATS] and language.answer([]) == []
    assert not any(parameter.requires_grad for parameter in language.model.parameters())


def test_a_second_try_draws_its_words_by_a_fixed_seed(language):
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    drawn = language.answer(CHATS, again=True)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert language.answer(CHATS, again=True) == drawn != language.answer(CHATS)


def test_the_picture_reaches_the_model(vision_folder):
    model = VisionLanguageModel(config(vision=str(vision_folder), picture_size=56))
    tower_inputs = []
    tower = model.model.model.visual
    tower.register_forward_pre_hook(
        lambda _, given, named: tower_inputs.append([*given, *named.values()][0]), with_kwargs=True
    )
    for color in ("red", "blue"):
        model.answer([Chat("s", "u", Image.new("RGB", (120, 60), color))])
    assert len(tower_inputs) == 2 and tower_inputs[0].shape == tower_inputs[1].shape and not torch.equal(*tower_inputs)
    assert model.answer([Chat("s", "u")]) and len(tower_inputs) == 2


@pytest.mark.parametrize("name", ["vlm", "two_stage"])
def test_what_an_untrained_model_says_is_refused(name, vision_folder, language_folder):
    chosen = config(vision=str(vision_folder), language=str(language_folder))
    describer = require_describer(name).load(chosen)
    with pytest.raises(ValueError, match="gave no source_caption"):
        describer.describe([Image.new("RGB", (56, 56))], [("make it blue",)])
    with pytest.warns(UserWarning, match="gave no keyword"):
        assert describer.keyword("make it blue") is None


def test_the_identity_changes_with_weights_and_settings(language, tmp_path):
    other = LanguageModel(config(language=str(write_language_model(tmp_path, seed=1)))).identity
    assert language.identity["sha256"] != other["sha256"]
    longer = replace(language.config, max_tokens=7)
    assert LanguageModel(longer).identity != language.identity


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"language": "nobody/no-such-model"},
            "describe.language: no model could be loaded from 'nobody/no-such-model'",
        ),
        ({"vision": "nobody/no-such-model"}, "describe.vision: no model could be loaded from 'nobody/no-such-model'"),
        ({"device": "cuda:77"}, "device: 'cuda:77' cannot be used here"),
    ],
)
def test_what_cannot_be_loaded_is_named_in_one_line(changes, says, language_folder):
    chosen = TwoStageConfig(**({"language": str(language_folder)} | changes))
    with pytest.raises(ValueError) as error:
        require_describer("two_stage").load(chosen)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_model_without_a_chat_template_is_refused(tmp_path):
    folder = write_language_model(tmp_path, template=None)
    with pytest.raises(ValueError, match="describe.language: .* has no chat template"):
        LanguageModel(config(language=str(folder)))
