"""Settings of the vision-language model that judges edits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class VlmJudgeConfig:
    """A vision-language model behind an OpenAI-compatible server that scores edits by the benchmark's rubric.

    Its answers are stored word for word; scores are computed from the stored answers. The settings down to
    `picture_format` and the prompts are part of the protocol: two results that differ in one never share a column.

    Args:
        model: the server's name for the model; empty: no judge, and its scores have no value.
        revision: the weights' commit or date, for the record; servers do not report it.
        temperature: sampling temperature; None: not sent, the server's default holds.
        seed: seed of the sampling; None: not sent.
        max_tokens: maximum length of an answer.
        picture_first: whether pictures precede the text in the message.
        picture_format: how pictures are encoded: `jpeg` (quality 75) or `png`.
        prompts: file with the rubric's prompts, needed for rubrics whose licence does not let us ship them.
        endpoint: address of the server up to /v1; needed to judge, not to score stored answers.
        api_key_variable: environment variable that holds the server's key; None: no key.
        concurrency: maximum number of questions sent to the server at the same time.
        timeout: seconds for one attempt.
        attempts: how often a question is sent to a server that is busy or does not answer.
    """

    model: str = ""
    revision: str = "unstated"
    temperature: float | None = None
    seed: int | None = None
    max_tokens: int = 1400
    picture_first: bool = False
    picture_format: Literal["jpeg", "png"] = "jpeg"
    prompts: str | None = None
    endpoint: str = ""
    api_key_variable: str | None = None
    concurrency: int = 8
    timeout: float = 120.0
    attempts: int = 5


@dataclass
class PairJudgeConfig:
    """`python -m regionedit.evaluation.pair_judge`: a model compares the pictures of two finished evaluations.

    Args:
        system: folder of the evaluation whose wins are counted.
        against: folder of the evaluation that it is compared with, on the same cases.
        out: receives pair_judge.json, pair_judge.md and answers/; a folder for each pair. Run again to continue.
        vlm_judge: the model, by default PVC-Judge of GEdit-Bench v2 with its script's settings. `prompts` names its
            prompt file, which also orders text and pictures. Without `endpoint`, only stored answers are read.
    """

    system: str
    against: str
    out: str = "outputs/pair_judge"
    vlm_judge: VlmJudgeConfig = field(
        default_factory=lambda: VlmJudgeConfig("PVC-Judge", temperature=0.0, max_tokens=512, picture_format="png")
    )
