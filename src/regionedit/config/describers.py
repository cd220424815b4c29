"""Settings of the describers: one dataclass for each, with the settings that it reads and no others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regionedit.config.models import MICROWORLD


@dataclass
class DescribeConfig:
    """Where captions come from if a request gives none.

    Args:
        name: key of DESCRIBERS; it decides which other settings there are.
    """

    name: str


@dataclass
class GivenConfig(DescribeConfig):
    """No describer: a request without the captions that it needs fails."""

    name: Literal["given"] = "given"


@dataclass
class MicroworldConfig(DescribeConfig):
    """Captions are read from a microworld picture's pixels and the instruction, without a model."""

    name: Literal["microworld"] = "microworld"


@dataclass
class ModelDescriberConfig(DescribeConfig):
    """Settings of every describer that queries a model.

    Args:
        max_tokens: maximum length of an answer, in tokens.
        picture_size: longer side, in pixels, of the picture that a vision-language model gets.
        cache: folder that keeps the models' answers for later runs, by picture, instructions, model and prompt; any
            number of processes may share it. None: no cache.
        cache_entries: maximum number of answers in the cache; the oldest are deleted.
    """

    max_tokens: int = 256
    picture_size: int = 768
    cache: str | None = "outputs/captions"
    cache_entries: int = 100_000


@dataclass
class VlmConfig(ModelDescriberConfig):
    """One vision-language model writes both captions at once, in half the memory of `two_stage`.

    Args:
        vision: folder or hub name of an AutoModelForImageTextToText. It has to be given: the default, `microworld`, is
            for `two_stage` only.
        vision_revision: pinned revision of a hub name.
        device: device of every model: cpu, cuda, cuda:1, mps; auto takes a GPU if there is one.
        dtype: precision of the weights; auto as for the generator.
    """

    name: Literal["vlm"] = "vlm"
    vision: str = "microworld"
    vision_revision: str | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


@dataclass
class TwoStageConfig(VlmConfig):
    """The paper's describer: a vision-language model writes the source caption, a language model the target caption.

    Args:
        vision: folder or hub name of an AutoModelForImageTextToText, in the paper Qwen2.5-VL; `microworld`: no model,
            captions are read from a microworld picture's pixels.
        language: folder or hub name of an AutoModelForCausalLM, in the paper Qwen2.5.
        language_revision: pinned revision of a hub name.
    """

    name: Literal["two_stage"] = "two_stage"
    language: str = f"{MICROWORLD}/qwen"
    language_revision: str | None = None


@dataclass
class ChatEndpointConfig:
    """A vision-language model behind an OpenAI-compatible server.

    Args:
        endpoint: address of the server up to /v1: vLLM, SGLang, llama.cpp or a hosted service.
        endpoint_model: the server's name for the model.
        api_key_variable: environment variable that holds the server's key; None: no key.
        concurrency: maximum number of questions sent to the server at the same time.
        timeout: seconds for one attempt.
        attempts: how often a question is sent to a server that is busy or does not answer.
    """

    endpoint: str = ""
    endpoint_model: str = ""
    api_key_variable: str | None = None
    concurrency: int = 8
    timeout: float = 60.0
    attempts: int = 5


@dataclass
class EndpointConfig(ChatEndpointConfig, ModelDescriberConfig):
    """A vision-language model behind an OpenAI-compatible server writes both captions."""

    name: Literal["endpoint"] = "endpoint"


@dataclass
class VlmBoxConfig(ChatEndpointConfig):
    """A vision-language model behind an OpenAI-compatible server draws the boxes of the mask source `vlm_box`.

    Args:
        coordinates: how this model counts a box's corners: `normalised` from 0 to 1000 over each side of the picture,
            as Qwen3-VL and Qwen2-VL do; `pixels` of the picture as it is sent, as Qwen2.5-VL does.
        max_tokens: maximum length of an answer, in tokens.
        picture_size: longer side, in pixels, of the picture that the model gets. With `coordinates: pixels`, both sides
            are rounded to multiples of 28, so that the server of a Qwen2.5-VL does not scale the picture once more.
        cache: folder that keeps the answers for later runs, by picture, instruction, model and prompt; any number of
            processes may share it. None: no cache.
        cache_entries: maximum number of answers in the cache; the oldest are deleted.
    """

    coordinates: Literal["normalised", "pixels"] = "normalised"
    max_tokens: int = 512
    picture_size: int = 768
    cache: str | None = "outputs/boxes"
    cache_entries: int = 100_000


DESCRIBE_CONFIGS: dict[str, type[DescribeConfig]] = {
    config.name: config for config in (GivenConfig, MicroworldConfig, TwoStageConfig, VlmConfig, EndpointConfig)
}
"""The settings of each describer, by `describe.name`."""
