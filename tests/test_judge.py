"""A judge behind a server that also fails, delays, refuses and rambles: every answer is stored and counted."""

import base64
import io
import json
from dataclasses import replace

import pytest
from aiohttp import web
from PIL import Image

from regionedit.config import EvaluateConfig, VlmJudgeConfig
from regionedit.evaluation import METRICS, judge
from regionedit.evaluation.benchmarks import GEdit
from regionedit.evaluation.benchmarks.base import VIESCORE
from regionedit.evaluation.compare import compare
from regionedit.evaluation.finished_evaluations import IncomparableError, read_evaluations
from regionedit.evaluation.judge import Judge, ask, counts
from regionedit.evaluation.outcomes import CaseFolder
from regionedit.evaluation.run import evaluate
from regionedit.evaluation.scoring import ScoreLog, score_cases
from regionedit.files import write_atomic
from regionedit.images import png
from regionedit.records import EditCase, EditRequest
from tests.benchmark_fixtures import write_gedit
from tests.chat_servers import serving

GOOD = '{"score": [9, 8], "reasoning": "ok"}'
PARTS = ("viescore_semantics", "viescore_quality", "viescore", "viescore_or_zero", "viescore_unanswered")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(judge, "BACKOFF", 0.01)
    monkeypatch.setattr(judge, "LONGEST_WAIT", 0.05)


def text_of(body: dict) -> str:
    return next(part["text"] for part in body["messages"][0]["content"] if part["type"] == "text")


def about(body: dict) -> str:
    """The instruction that a question is about; empty for the question about quality."""
    _, found, instruction = text_of(body).partition("Editing instruction: ")
    return instruction.strip() if found else ""


def finished(tmp_path, *instructions: str) -> tuple[CaseFolder, list[EditCase]]:
    """Cases with edited pictures, named by their instructions."""
    cases = [
        EditCase(name, EditRequest(Image.new("RGB", (24, 16), (10 * n, 0, 0)), name, id=name), "color_alter")
        for n, name in enumerate(instructions)
    ]
    for n, case in enumerate(cases):
        write_atomic(tmp_path / f"pictures/{case.id}.png", png(Image.new("RGB", (24, 16), (0, 10 * n, 0))))
    return CaseFolder(tmp_path), cases


def scores(folder: CaseFolder, cases: list[EditCase], config: VlmJudgeConfig, log: ScoreLog | None = None) -> dict:
    """Case -> the scores of VIEScore, rounded; and by None what the metrics lack."""
    metrics = {name: METRICS[name].from_config(EvaluateConfig(vlm_judge=config)) for name in PARTS}
    rows = score_cases(folder.outcomes, cases, metrics, "", len(cases), log).set_index("id")
    found = {name: [round(float(row[part]), 3) for part in PARTS] for name, row in rows.iterrows()}
    return found | {None: metrics["viescore"].why_missing()}


def asked(folder: CaseFolder, cases: list[EditCase], config: VlmJudgeConfig) -> dict[str, int]:
    the_judge = Judge.from_config(config, "viescore")
    ask(the_judge, folder, cases, "")
    return counts(the_judge, folder, [case.id for case in cases])


async def misbehave(body: dict, before: int):
    """The answer depends on the instruction; questions about quality are answered well."""
    what = about(body)
    if what == "late" and not before:
        import asyncio

        await asyncio.sleep(1.5)
    if what == "busy" and not before:
        return web.Response(status=503)
    if what == "down":
        return web.Response(status=500, text="out of memory")
    if what == "filtered":
        return web.json_response({"error": {"code": "content_filter"}}, status=400)
    if what == "silent":
        return {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}
    if what == "rambling":
        return "Well, one might say that " + "the edit is fine, " * 50
    if what == "named":
        choice = {"message": {"content": GOOD}, "finish_reason": "stop"}
        return {"choices": [choice], "model": "judge-2026-01-01", "system_fingerprint": "fp_7"}
    return GOOD


def test_every_answer_is_stored_word_for_word_and_failures_are_counted(tmp_path):
    kinds = ("good", "late", "busy", "down", "filtered", "silent", "rambling", "named")
    folder, cases = finished(tmp_path, *kinds)
    with serving(misbehave) as server:
        config = VlmJudgeConfig(model="m", endpoint=server.url, timeout=1, attempts=2)
        found = asked(folder, cases, config)
    assert found == {"readable": 12, "failed": 1, "refused": 2, "unreadable": 1, "answered by judge-2026-01-01": 1}
    fine, none = [8, 8, 8, 8, 0], [float("nan")] * 3 + [0, 1]
    for name, row in scores(folder, cases, config).items():
        if name is not None:
            expected = fine if name in ("good", "late", "busy", "named") else none
            assert row == pytest.approx(expected, nan_ok=True), name

    key = Judge.from_config(config, "viescore").key
    stored = json.loads((tmp_path / f"answers/{key}/rambling.json").read_text())
    first = stored["answers"][0]
    assert first["text"].startswith("Well, one might say") and len(first["text"]) > 900
    assert (first["question"], first["state"], first["prompt"][:8]) == ("semantics", "answered", "8f529562")
    assert stored["judge"] | {"model": "m", "temperature": None, "max_tokens": 1400} == stored["judge"]
    errors = {n: json.loads((tmp_path / f"answers/{key}/{n}.json").read_text())["answers"][0] for n in kinds}
    assert "out of memory" in errors["down"]["error"] and "content_filter" in errors["filtered"]["error"]
    assert (errors["named"]["answered_by"], errors["named"]["system"]) == ("judge-2026-01-01", "fp_7")


def test_only_what_failed_or_changed_is_asked_again_and_scoring_asks_nothing(tmp_path):
    folder, cases = finished(tmp_path, "good", "down", "filtered", "rambling")
    with serving(misbehave) as server:
        config = VlmJudgeConfig(model="m", endpoint=server.url, attempts=1)
        asked(folder, cases, config)
        assert len(server.bodies) == 8
    path = tmp_path / "log.jsonl"
    log = ScoreLog(path, {}, folder.stamp)
    before = scores(folder, cases, config, log)  # no server is there any more
    assert before["good"] == [8, 8, 8, 8, 0] and before["down"][-1] == 1
    write_atomic(tmp_path / "pictures/good.png", png(Image.new("RGB", (24, 16), "white")))
    stale = scores(folder, cases, config, ScoreLog(path, {}, folder.stamp))
    assert stale["good"] == pytest.approx([float("nan")] * 5, nan_ok=True)
    assert stale[None] == "needs answers of this judge about this picture (1 case has none)"
    with serving(lambda body, before: '{"score": [4, 9]}') as server:
        config = replace(config, endpoint=server.url)
        asked(folder, cases, config)
        assert sorted(map(about, server.bodies)) == ["", "down", "good"]
    after = scores(folder, cases, config, ScoreLog(path, {}, folder.stamp))
    assert after["good"] == [4, 4, 4, 4, 0] and after["down"] == [4, 8, round(32**0.5, 3), round(32**0.5, 3), 0]
    assert after["filtered"] == pytest.approx(before["filtered"], nan_ok=True)


def test_the_message_has_the_order_format_and_settings_of_the_configuration(tmp_path):
    folder, cases = finished(tmp_path, "good")
    with serving(lambda body, before: GOOD) as server:
        asked(folder, cases, VlmJudgeConfig(model="m", endpoint=server.url))
        greedy = VlmJudgeConfig(
            model="m", endpoint=server.url, temperature=0, seed=42, picture_first=True, picture_format="png"
        )
        asked(folder, cases, greedy)
    first, quality, second, _ = server.bodies
    assert set(first) == {"model", "messages", "max_tokens"} and len(quality["messages"][0]["content"]) == 2
    assert (second["temperature"], second["seed"]) == (0, 42)
    for body, places, kind in ((first, (1, 2), "jpeg"), (second, (0, 1), "png")):
        (message,) = body["messages"]
        assert message["role"] == "user" and len(message["content"]) == 3
        for place, picture in zip(places, (cases[0].request.image, folder.picture("good")), strict=True):
            head, data = message["content"][place]["image_url"]["url"].split(",")
            shown = Image.open(io.BytesIO(base64.b64decode(data)))
            assert head == f"data:image/{kind};base64" and shown.size == picture.size
            assert shown.getpixel((0, 0)) == pytest.approx(picture.getpixel((0, 0)), abs=3)
    assert len(list((tmp_path / "answers").iterdir())) == 2  # another setting is another judge


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "status 401 Unauthorized; set vlm_judge.api_key_variable"),
        (404, "correct vlm_judge.endpoint"),
        (503, "given up after 2 attempts"),
    ],
)
def test_a_server_that_answers_nothing_ends_the_run_at_once(tmp_path, status, said):
    folder, cases = finished(tmp_path, *map(str, range(9)))
    with serving(lambda body, before: web.Response(status=status)) as server:
        with pytest.raises(ValueError, match="^vlm_judge.endpoint: http") as error:
            asked(folder, cases, VlmJudgeConfig(model="m", endpoint=server.url, attempts=2))
    assert said in str(error.value) and len(server.bodies) <= 2 and not (tmp_path / "answers").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"benchmark": "emu_edit", "vlm_judge": VlmJudgeConfig(model="m")}, "vlm_judge.model: emu_edit has no rubric"),
        ({"stage": "judge"}, "vlm_judge.model: needed for --stage judge"),
        ({"stage": "judge", "vlm_judge": VlmJudgeConfig(model="m")}, "vlm_judge.endpoint: needed for --stage judge"),
        ({"vlm_judge": VlmJudgeConfig(endpoint="x")}, "vlm_judge.model: needed with vlm_judge.endpoint"),
        ({"vlm_judge": VlmJudgeConfig(model="m", api_key_variable="NO_SUCH")}, "has no variable NO_SUCH"),
        ({"vlm_judge": VlmJudgeConfig(model="m", prompts="p")}, "vlm_judge.prompts: leave it out"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_done(tmp_path, changes, said):
    with pytest.raises(ValueError, match=f"^vlm_judge.*{said.partition(': ')[2] or said}"):
        evaluate(EvaluateConfig(**{"benchmark": "gedit", "data": "nowhere", "out": str(tmp_path)} | changes))


@pytest.mark.filterwarnings("ignore:data")
def test_a_whole_evaluation_judges_stores_and_scores_again_without_the_server(tmp_path, monkeypatch):
    """Two judges make two results that may not share a column."""
    monkeypatch.setattr(GEdit, "metrics", VIESCORE)
    data, pictures = write_gedit(tmp_path / "gedit"), tmp_path / "theirs"
    for case in GEdit(data):
        write_atomic(pictures / f"{case.id}.png", png(case.request.image))
    base = EvaluateConfig(benchmark="gedit", data=str(data), pictures=str(pictures), out=str(tmp_path / "a"))
    with serving(lambda body, before: GOOD if "colour it 1" not in text_of(body) else "no idea") as server:
        config = replace(base, vlm_judge=VlmJudgeConfig(model="m", endpoint=server.url))
        assert evaluate(replace(config, stage="judge")) == {"n": 3, "failed": 0}
        assert len(server.bodies) == 6
    summary = evaluate(replace(config, stage="score"))
    assert summary["metrics"]["viescore"]["mean"] == 8 and summary["metrics"]["viescore"]["n"] == 2
    assert summary["metrics"]["viescore_or_zero"]["mean"] == pytest.approx(16 / 3)
    assert summary["metrics"]["viescore_unanswered"]["mean"] == pytest.approx(1 / 3)
    assert summary["judge"] == {"readable": 5, "unreadable": 1}
    assert summary["protocol"]["vlm_judge"]["prompt quality"].startswith("2473ff2c")

    with serving(lambda body, before: GOOD) as server:
        other = VlmJudgeConfig(model="m", revision="later", endpoint=server.url)
        evaluate(replace(base, out=str(tmp_path / "b"), vlm_judge=other))
    with pytest.raises(IncomparableError, match="vlm_judge.revision: 'unstated' in a, 'later' in b"):
        compare(read_evaluations([tmp_path / "a", tmp_path / "b"]), None, False, False)
