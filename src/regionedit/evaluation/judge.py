"""Sends questions about finished edits to a vision-language model and stores its answers word for word.

`answers/{key}/{case}.json` beside the pictures holds all answers about a case; the key names rubric and judge and ends
in a hash of everything that the protocol records of them. Scores are computed from these files alone, so `--stage
score` needs no server. An answer belongs to the pictures that were sent; if one has changed, the next run repeats the
question.

The states of an answer:

- `answered`: there is a text, readable or not. The question is never repeated, because repeating it until the
  answer suits would bias the score.
- `refused`: the server declined this question, for example through a content filter. Also final.
- `failed`: busy, unreachable, or no chat completion. It counts as unanswered, and the next run repeats the question.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from PIL import Image

from regionedit.chat_client import ChatClient, NoCompletion, Refused, SettingNames, TooLong, Unavailable
from regionedit.config import EvaluateConfig, VlmJudgeConfig
from regionedit.evaluation.editing import TOGETHER, chunks
from regionedit.evaluation.outcomes import CaseFolder, Outcome
from regionedit.evaluation.rubrics import Question, Rubric, Unreadable, load_rubric
from regionedit.images import data_uri, png
from regionedit.progress import track
from regionedit.records import EditCase

BACKOFF, LONGEST_WAIT = 1.0, 60.0  # seconds: upper limit of the first wait, and longest wait between two attempts
JPEG_QUALITY = 75  # Pillow's default, which GEdit-Bench's script uses
ANSWERED, REFUSED, FAILED = "answered", "refused", "failed"
SENT = ("temperature", "seed", "max_tokens")  # sampling settings in a request's body
JUDGED_BY = ("model", "revision", *SENT, "picture_first", "picture_format")  # settings that may change an answer


@dataclass(frozen=True)
class Judge:
    """A model with its settings, and the rubric by which it judges.

    Args:
        name: key of RUBRICS.
    """

    config: VlmJudgeConfig
    name: str
    rubric: Rubric

    @classmethod
    def from_config(cls, config: VlmJudgeConfig, rubric: str | None) -> Judge | None:
        """The configured judge; None without a model or a rubric. ValueError: the rubric's prompts are missing."""
        return cls(config, rubric, load_rubric(rubric, config.prompts)) if config.model and rubric else None

    def identity(self) -> dict[str, Any]:
        """Everything that may change an answer, as the protocol records it."""
        settings = {name: getattr(self.config, name) for name in JUDGED_BY}
        return {"rubric": self.name} | settings | self.rubric.identity()

    @property
    def key(self) -> str:
        """The name of the answers' folder."""
        model = re.sub(r"[^\w.-]+", "_", self.config.model)
        return f"{self.name}-{model}-{sha256(json.dumps(self.identity()).encode()).hexdigest()[:8]}"

    def stored(self, outcome: Outcome) -> list[dict[str, Any]]:
        """The stored answers about an edit; [] if there are none about its present picture."""
        content = outcome.answers.get(self.key)
        return content["answers"] if content and content["shown"] == outcome.shown else []

    def scores(self, outcome: Outcome) -> dict[str, float] | None:
        """Part -> score from the stored answers; {} if not all of them are readable, None if there are none."""
        answers = self.stored(outcome)
        if not answers:
            return None
        read = {answer["question"]: self.read(answer) for answer in answers}
        return {} if None in read.values() else self.rubric.scores(read)

    def read(self, answer: dict[str, Any]) -> float | None:
        """The score of one stored answer; None if it is not `answered` or cannot be read."""
        if answer["state"] != ANSWERED:
            return None
        try:
            return self.rubric.read(answer["question"], answer["text"])
        except Unreadable:
            return None


def require_judge(config: EvaluateConfig, rubric: str | None) -> None:
    """Check the settings of the judge before anything is edited.

    Raises:
        ValueError: the benchmark has no rubric, or a setting is missing; one line that names it.
    """
    judge = config.vlm_judge
    if judge.model and rubric is None:
        raise ValueError(f"vlm_judge.model: {config.benchmark} has no rubric by which a model could judge its edits")
    if config.stage == "judge" and not (judge.model and judge.endpoint):
        missing = "endpoint" if judge.model else "model"
        raise ValueError(f"vlm_judge.{missing}: needed for --stage judge")
    if judge.endpoint and not judge.model:
        raise ValueError("vlm_judge.model: needed with vlm_judge.endpoint: the server's name for the model")
    require_key(judge)
    the_judge = Judge.from_config(judge, rubric)
    if the_judge and the_judge.rubric.shipped and judge.prompts is not None:
        raise ValueError(f"vlm_judge.prompts: leave it out, the prompts of {rubric} are shipped")


def require_key(config: VlmJudgeConfig) -> None:
    """Raises ValueError if the environment lacks the variable with the server's key."""
    if (name := config.api_key_variable) and name not in os.environ:
        raise ValueError(f"vlm_judge.api_key_variable: the environment has no variable {name}")


def ask(judge: Judge, folder: CaseFolder, cases: Collection[EditCase], title: str) -> None:
    """Store the answers about every case with an edited picture for which there are none yet.

    Raises:
        ValueError: the server refuses every request, or does not answer the first one; one line with the setting.
    """
    with ThreadPoolExecutor(1) as thread:  # a separate thread: the caller may run in an event loop
        thread.submit(lambda: asyncio.run(_ask_all(judge, folder, cases, title))).result()


def counts(judge: Judge, folder: CaseFolder, ids: Iterable[str]) -> dict[str, int]:
    """How many answers about these cases are readable, unreadable, refused or failed, and how many each model gave by
    the name that the server returned."""
    found: Counter[str] = Counter()
    for case_id in ids:
        for answer in folder.answers(case_id)[judge.key]["answers"]:
            unread = "unreadable" if answer["state"] == ANSWERED else answer["state"]
            found["readable" if judge.read(answer) is not None else unread] += 1
            if answer.get("answered_by"):
                found[f"answered by {answer['answered_by']}"] += 1
    return dict(found)


async def _ask_all(judge: Judge, folder: CaseFolder, cases: Collection[EditCase], title: str) -> None:
    config = judge.config
    client = ChatClient(
        config.endpoint,
        os.environ[config.api_key_variable] if config.api_key_variable else None,
        concurrency=config.concurrency,
        timeout=config.timeout,
        attempts=config.attempts,
        backoff=BACKOFF,
        longest_wait=LONGEST_WAIT,
        names=SettingNames("vlm_judge.api_key_variable", "vlm_judge.endpoint", "vlm_judge.model"),
    )
    first = True
    async with aclosing(client):
        for together in chunks(track(cases, title, len(cases)), TOGETHER):
            waiting = [outcome for outcome in folder.outcomes(together) if _is_open(judge, outcome)]
            if first and waiting:
                await _ask_case(judge, client, folder, waiting.pop(0), first=True)
                first = False
            await asyncio.gather(*(_ask_case(judge, client, folder, outcome) for outcome in waiting))


def _is_open(judge: Judge, outcome: Outcome) -> bool:
    if outcome.failed is not None:
        return False
    answers = judge.stored(outcome)
    return not answers or any(answer["state"] == FAILED for answer in answers)


async def _ask_case(
    judge: Judge, client: ChatClient, folder: CaseFolder, outcome: Outcome, first: bool = False
) -> None:
    """Send the questions of one case that have no final answer, and store the answers of all."""
    kept = {answer["question"]: answer for answer in judge.stored(outcome) if answer["state"] != FAILED}
    answers = [
        kept.get(question.name) or await _ask(judge, client, question, first)
        for question in judge.rubric.questions(outcome)
    ]
    content = {"judge": judge.identity(), "shown": outcome.shown, "answers": answers}
    folder.write_answers(judge.key, outcome.case.id, content)


async def _ask(judge: Judge, client: ChatClient, question: Question, first: bool) -> dict[str, Any]:
    """The answer to one question with everything that is needed to judge or repeat it."""
    answer: dict[str, Any] = {"question": question.name, "prompt": question.prompt, "text": None}
    try:
        completion = await client.complete(lambda: _body(judge.config, question))
        # A filter of the server may leave no text.
        answer |= {"state": ANSWERED if completion.text else REFUSED, "text": completion.text}
        answer |= {"cut_off": completion.cut_off, "answered_by": completion.model, "system": completion.fingerprint}
    except Refused as error:
        if error.advice:
            raise ValueError(f"vlm_judge.endpoint: {client.url}: {error}; {error.advice}") from None
        answer |= {"state": REFUSED, "error": str(error)}
    except (Unavailable, NoCompletion, TooLong) as error:
        if first and isinstance(error, Unavailable):
            tried = f"given up after {judge.config.attempts} attempts"
            raise ValueError(f"vlm_judge.endpoint: {client.url}: {tried}: {error}") from None
        answer |= {"state": FAILED, "error": str(error)}
    return answer | {"time": datetime.now(UTC).isoformat(timespec="seconds")}


def _body(config: VlmJudgeConfig, question: Question) -> dict[str, Any]:
    text, pictures = (question.text,), question.pictures
    parts = question.parts or (pictures + text if config.picture_first else text + pictures)
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": _sent(part, config.picture_format)}}
        for part in parts
    ]
    system = [{"role": "system", "content": question.system}] if question.system else []
    sampling = {name: value for name in SENT if (value := getattr(config, name)) is not None}
    return {"model": config.model, "messages": [*system, {"role": "user", "content": content}]} | sampling


def _sent(picture: Image.Image, kind: str) -> str:
    """The picture as a data URI, a PNG or a JPEG."""
    if kind == "png":
        return data_uri(png(picture))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return data_uri(file.getvalue(), kind)
