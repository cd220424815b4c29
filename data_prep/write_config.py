"""The configuration of write_instructions.py; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from regionedit.config import DescribeConfig


@dataclass
class SamplingConfig:
    """How a language model is sampled.

    Args:
        temperature: 0 takes the likeliest token.
        retry_temperature: of the second attempt, where the first answer was no good.
        top_p: share of the probability that is sampled from.
        max_tokens: longest answer.
    """

    temperature: float = 0.7
    retry_temperature: float = 1.0
    top_p: float = 0.95
    max_tokens: int = 256


@dataclass
class EndpointConfig:
    """An OpenAI-compatible server: vLLM, SGLang, llama.cpp, or a hosted service (key in OPENAI_API_KEY).

    Args:
        url: up to and with the version, for example http://127.0.0.1:8000/v1.
        concurrency: requests in flight at once, for each worker process.
        timeout: seconds after which an answer is no longer waited for.
        retries: how often a request is sent again after 408, 429, 5xx, a timeout or a lost connection.
        backoff: seconds before the first of these, doubled each time, drawn at random below that; the server's
            Retry-After counts where it is longer.
        longest_wait: most seconds between two of them.
        response_format: how the server is held to the schema; `none` for servers that know neither.
    """

    url: str = "http://127.0.0.1:8000/v1"
    concurrency: int = 128
    timeout: float = 120.0
    retries: int = 5
    backoff: float = 0.5
    longest_wait: float = 60.0
    response_format: Literal["json_schema", "json_object", "none"] = "json_schema"


@dataclass
class EngineConfig:
    """A language model in this process, by transformers or vLLM.

    Args:
        device: of transformers: cpu, cuda, mps; auto takes what is there.
        batch: captions that transformers answers together.
        precision: of the weights.
        tensor_parallel: GPUs that one vLLM engine spreads over.
        max_model_len: longest prompt and answer together, in tokens, of vLLM.
        memory: share of the GPU that vLLM takes.
    """

    device: str = "auto"
    batch: int = 32
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    tensor_parallel: int = 1
    max_model_len: int = 2048
    memory: float = 0.9


@dataclass
class WriteConfig:
    """Write `{shard}.instructions.jsonl` beside every shard: from each caption an instruction and a target caption.

    Run again to go on: complete shards are skipped, changed ones are redone. Any number of these commands may share a
    folder. Deterministic writers give the same bytes however often they were interrupted; language models do not
    quite, because what they compute depends on what is computed together.

    Args:
        data: folder of shards `{shard:05d}.tar` as img2dataset writes them.
        writer: key of WRITERS: `openai` (any compatible endpoint), `vllm`, `transformers`, `microworld` (its grammar),
            `stand_in` (no model: for rehearsals and tests).
        model: folder or hub name; for an endpoint the name that it knows.
        revision: pinned revision of a hub name.
        prompt: file of data_prep/prompts without suffix, or a path; None takes `instructions`, or `target_captions`.
        seed: of operations, wordings and sampling, each by the sample's key.
        mix: operation -> weight; empty takes MIX, as far as the writer can write it.
        source: what the shards bring: `captions`; `pictures` whose alt texts are of no use, so that the describer
            looks at each; `instructions`, so that only captions are written.
        instruction_column: where a given instruction is: `txt`, or a field of the sample's json.
        caption_column: where its picture's caption is, alike; None lets the describer look at the picture.
        language: `en` refuses instructions in other languages.
        longest_caption: longer ones are dropped; they are no captions, and would not fit the prompt.
        workers: processes of this command, each with a writer of its own.
        engine: `local`, or `ray`: the same work as a Ray Data job on `ray_address`, `workers` actors.
        ray_address: a cluster's address; None takes RAY_ADDRESS, or starts Ray on this machine.
        gpus: of each Ray actor.
        stale_seconds: a shard that another worker claimed is taken over when that worker has given no sign for so long.
        max_bad_fraction: share of dropped samples, or of unreadable shards, above which the command exits with 1.
    """

    data: str = "data/crawl"
    writer: str = "vllm"
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
    local: EngineConfig = field(default_factory=EngineConfig)
    describe: DescribeConfig = field(default_factory=DescribeConfig)


MIX = {"replace": 0.25, "recolour": 0.2, "add": 0.15, "remove": 0.15, "background": 0.1, "style": 0.05, "noop": 0.1}
