"""The configuration of write_instructions.py; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from regionedit.config import DESCRIBE_CONFIGS, DescribeConfig, MicroworldConfig


@dataclass
class SamplingConfig:
    """How a language model is sampled.

    Args:
        temperature: 0 takes the likeliest token.
        retry_temperature: temperature of the second attempt, after an invalid first answer.
        top_p: share of the probability that is sampled from.
        max_tokens: longest answer, in tokens.
    """

    temperature: float = 0.7
    retry_temperature: float = 1.0
    top_p: float = 0.95
    max_tokens: int = 256


@dataclass
class EndpointConfig:
    """An OpenAI-compatible server: vLLM, SGLang, llama.cpp, or a hosted service (key in OPENAI_API_KEY).

    Args:
        url: address up to and including the version, for example http://127.0.0.1:8000/v1.
        concurrency: requests in flight at once, for each worker process.
        timeout: seconds to wait for an answer.
        retries: how often a request is sent again after 408, 429, 5xx, a timeout or a lost connection.
        backoff: upper limit of the random wait before the first retry, in seconds; it doubles with each further retry.
            A longer Retry-After of the server takes precedence.
        longest_wait: longest wait between two attempts, in seconds.
        response_format: how the server is made to follow the schema; `none` for servers that support neither way.
    """

    url: str = "http://127.0.0.1:8000/v1"
    concurrency: int = 128
    timeout: float = 120.0
    retries: int = 5
    backoff: float = 0.5
    longest_wait: float = 60.0
    response_format: Literal["json_schema", "json_object", "none"] = "json_schema"


@dataclass
class WriteConfig:
    """Write `{shard}.instructions.jsonl` beside every shard: an instruction and a target caption for each caption.

    Run the command again to continue: complete shards are skipped, changed ones are redone. Any number of these
    commands can share a folder. Deterministic writers give the same bytes however often they are interrupted. Language
    models do not quite, because their results depend on how requests are batched.

    Args:
        data: folder of shards `{shard:05d}.tar` as img2dataset writes them.
        writer: key of WRITERS: `openai` (a language model behind any compatible endpoint), `microworld` (its grammar),
            `stand_in` (no model: for rehearsals and tests).
        model: the model's name at the endpoint.
        revision: revision of the model that the endpoint serves. It is only noted in the headers, so that another
            revision writes the shards again.
        prompt: file of data_prep/prompts without suffix, or a path; None takes `instructions`, or `target_captions`
            if instructions are given.
        seed: seed of operations, wordings and sampling, each combined with the sample's key.
        mix: operation -> weight; empty takes MIX, limited to what the writer can write.
        source: what the shards contain: `captions`; `pictures` without usable captions, so that the describer captions
            each; `instructions`, so that only captions are written.
        instruction_column: where the given instruction is: `txt`, or a field of the sample's json.
        caption_column: where the picture's caption is, likewise; None lets the describer caption the picture.
        language: `en` refuses instructions in other languages; `any` accepts all.
        longest_caption: longest caption, in characters; longer ones are dropped, as they would not fit the prompt.
        workers: number of processes, each with its own writer.
        engine: `local`, or `ray` to run as a Ray Data job on `ray_address` with `workers` actors.
        ray_address: a cluster's address; None takes RAY_ADDRESS, or starts Ray on this machine.
        gpus: GPUs of each Ray actor, for a describer that runs in it.
        stale_seconds: seconds without a heartbeat after which another worker counts as dead and its shard is taken
            over.
        max_bad_fraction: share of dropped samples, or of unreadable shards, above which the command exits with 1.
    """

    data: str = "data/crawl"
    writer: str = "openai"
    model: str = "Qwen/Qwen2.5-7B-Instruct"
    revision: str | None = None
    prompt: str | None = None
    seed: int = 0
    mix: dict[str, float] = field(default_factory=dict)
    source: Literal["captions", "pictures", "instructions"] = "captions"
    instruction_column: str = "txt"
    caption_column: str | None = None
    language: Literal["en", "any"] = "en"
    longest_caption: int = 1000
    workers: int = 1
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    gpus: float = 0.0
    stale_seconds: float = 120.0
    max_bad_fraction: float = 0.05
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    describe: DescribeConfig = field(default_factory=MicroworldConfig, metadata={"choices": DESCRIBE_CONFIGS})


MIX = {"replace": 0.25, "recolour": 0.2, "add": 0.15, "remove": 0.15, "background": 0.1, "style": 0.05, "noop": 0.1}


def operation_mix(config: WriteConfig) -> dict[str, float]:
    """Operation -> share, in the order of MIX, summing to 1.

    Raises:
        ValueError: an unknown operation, or invalid weights.
    """
    weights = config.mix or MIX
    for name, weight in weights.items():
        if name not in MIX:
            raise ValueError(f"mix: there is no operation {name!r}; there are: {', '.join(MIX)}")
        if not 0 <= weight < float("inf"):
            raise ValueError(f"mix: {name}: {weight} is not a weight; give 0 or more")
    total = sum(weights.values())
    if total <= 0:
        raise ValueError("mix: all weights are 0; give at least one operation a weight")
    return {name: weights[name] / total for name in MIX if weights.get(name)}
