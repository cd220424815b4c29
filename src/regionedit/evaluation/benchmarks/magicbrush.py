"""MagicBrush: sessions of one to three edits of a photograph, with the true result of every turn."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageChops

from regionedit.evaluation.benchmarks.base import (
    OF_TRUE_MASKS,
    TO_TARGET,
    kept_ids,
    require_unique,
    resized_to,
    warn_of_size,
)
from regionedit.evaluation.benchmarks.layout import require_files, require_layout
from regionedit.evaluation.benchmarks.pictures import ERASED, MaskedBenchmark, erased, open_rgb, open_stored
from regionedit.records import Captions, EditCase, EditRequest

SESSIONS, TURNS = 535, 1053  # of the released test set
LOCAL = ("local_descriptions.json", "local_captions.json", "local_description.json", "local_caption.json")
GLOBAL = ("global_descriptions.json", "global_captions.json", "global_description.json", "global_caption.json")
NUMBER = re.compile(r"-output(\d+)\.\w+")


@dataclass(frozen=True)
class Turn:
    """One line of edit_sessions.json.

    Args:
        session: its img_id.
        number: of the turn, from 1.
        turns: number of turns in the session.
        input, output, mask: file names inside images/{session}.
        last: whether it is the session's last turn.
    """

    session: str
    number: int
    turns: int
    input: str
    output: str
    mask: str
    instruction: str
    last: bool


@dataclass(frozen=True)
class TurnHistory:
    """What came before a turn of a session.

    Args:
        first: the picture with which the session began.
        edited: mode "L" of its size, 255 = in the true mask of this turn or of an earlier one; None if one has no mask.
    """

    first: Image
    edited: Image | None


class MagicBrush(MaskedBenchmark):
    """Single-turn: every turn of the released test set, edited from its true source.

    The folder holds `edit_sessions.json`, `images/{img_id}/{img_id}-input.png, -output1.png, -mask1.png, ...`,
    `local_descriptions.json` and `global_descriptions.json`. Case ids are the picture names of the authors' scripts:
    `139_1`, `139_inde_2`. All first turns come before all second ones.

    The target caption is the local description, as in the paper (github.com/OSU-NLP-Group/MagicBrush/issues/17). The
    source caption is the local description of the turn's input. First turns may have none and then get the global one;
    therefore no CLIP direction is scored.
    """

    metrics = (*TO_TARGET, "l1_source", "clip_image_source", "dino_source", *OF_TRUE_MASKS, "clip_instruction")
    setting = "single-turn: every turn from its true source"
    later = "inde"  # in the picture names of the authors' scripts, for turns after the first

    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None):
        super().__init__(folder, limit, ids)
        self.folder = require_layout(folder, ("edit_sessions.json", "images/"), "the MagicBrush test set")
        sessions = _sessions(self.folder / "edit_sessions.json")
        turns = sorted((turn for session in sessions for turn in session), key=lambda turn: turn.number)
        require_unique([self.case_id(turn) for turn in turns], self.folder / "edit_sessions.json")
        if empty := [self.case_id(turn) for turn in turns if not turn.instruction.strip()]:
            raise ValueError(f"data: {self.folder / 'edit_sessions.json'}: {empty[0]} has no instruction")
        self.kept = self._select(turns, limit, ids)
        pictures = dict.fromkeys(self._path(t, name) for t in self.kept for name in (t.input, t.output))
        require_files(pictures, "pictures")
        self.local, self.overall = (_captions(self.folder, names) for names in (LOCAL, GLOBAL))
        if not self.local:
            warnings.warn(
                f"data: {self.folder} has no {LOCAL[0]}, so there are no captions; CLIP-T is defined on local "
                "descriptions, which the released test set has",
                stacklevel=2,
            )
        self._counts = {
            "sessions": len(sessions),
            "turns": len(turns),
            "one-turn sessions": sum(len(session) == 1 for session in sessions),
            "cases": sum(self._scored(turn) for turn in self.kept),
            "without target caption": sum(self._target(turn) is None for turn in self.kept),
            "global source caption": sum(not self._caption(self.local, t, t.input) for t in self.kept),
        }
        if (len(sessions), len(turns)) != (SESSIONS, TURNS):
            found = f"{len(sessions):,} sessions and {len(turns):,} turns"
            warn_of_size(self.folder, found, f"the MagicBrush test set {SESSIONS:,} and {TURNS:,}")
        self.protocol = resized_to("target") | {
            "setting": self.setting,
            "captions": "local descriptions",
            "split": f"{len(sessions):,} sessions, {len(turns):,} turns",
            "truth_mask": ERASED,
        }

    def case_id(self, turn: Turn) -> str:
        """The edited picture's name in the authors' scripts."""
        return f"{turn.session}_1" if turn.number == 1 else f"{turn.session}_{self.later}_{turn.number}"

    def _select(self, turns: list[Turn], limit: int, ids: str | Path | None) -> list[Turn]:
        listed = kept_ids([self.case_id(turn) for turn in turns], ids)
        kept = [turn for turn in turns if self.case_id(turn) in listed]
        return kept[: limit or None]

    def _scored(self, turn: Turn) -> bool:
        return True

    def _case(self, turn: Turn) -> EditCase:
        name = self.case_id(turn)
        image = self._open(turn, turn.input)
        target = self._target(turn)
        source = self._caption(self.local, turn, turn.input) or self._caption(self.overall, turn, turn.input)
        captions = None if target is None else Captions(source or "", target)
        return EditCase(
            id=name,
            request=EditRequest(image, turn.instruction, captions=captions, id=name),
            operation=f"turn {turn.number}",
            groups={"turns": str(turn.turns)},
            truth_mask=self._true_mask(turn, image.size),
            truth_image=self._open(turn, turn.output),
            scored=self._scored(turn),
        )

    def _true_mask(self, turn: Turn, size: tuple[int, int]) -> Image.Image | None:
        """The human mask of a turn at this size (width, height)."""
        path = self._path(turn, turn.mask)

        def decode():
            if not turn.mask or not path.is_file():
                raise ValueError("its file is missing")
            return erased(open_stored(path, str(path)), size)

        return self._mask(self.case_id(turn), decode)

    def _path(self, turn: Turn, name: str) -> Path:
        return self.folder / "images" / turn.session / name

    def _open(self, turn: Turn, name: str):
        path = self._path(turn, name)
        return open_rgb(path, str(path))

    def _target(self, turn: Turn) -> str | None:
        return self._caption(self.local, turn, turn.output)

    @staticmethod
    def _caption(captions: dict, turn: Turn, name: str) -> str | None:
        """A caption from {img_id: {file: caption}}, as released, or from {file: caption}, as in some copies."""
        nested = captions.get(turn.session)
        caption = (nested if isinstance(nested, dict) else captions).get(name)
        return caption.strip() or None if isinstance(caption, str) else None


class MagicBrushMultiTurn(MagicBrush):
    """Multi-turn: each turn of a session edits the editor's own result of the turn before; the last one is scored.

    Case ids are `139_1`, `139_iter_2`. `limit` counts sessions; `ids` lists last turns, and their earlier turns are
    included. A session with a missing turn is an error.
    """

    setting = "multi-turn: turns applied to one's own results, the last one scored"
    later = "iter"

    def _select(self, turns: list[Turn], limit: int, ids: str | Path | None) -> list[Turn]:
        last = {turn.session: self.case_id(turn) for turn in turns if turn.last}
        listed = kept_ids(list(last.values()), ids)
        sessions = [name for name in dict.fromkeys(turn.session for turn in turns) if last[name] in listed]
        sessions = set(sessions[: limit or None])
        chosen = [turn for turn in turns if turn.session in sessions]
        latest: dict[str, Turn] = {}
        for turn in chosen:
            previous = latest.get(turn.session)
            if turn.number != (previous.number + 1 if previous else 1) or previous and turn.input != previous.output:
                raise ValueError(
                    f"data: turn {turn.number} of session {turn.session} starts from {turn.input}, which no turn "
                    "before it produces; edit_sessions.json lacks a turn. Leave the session out with ids"
                )
            latest[turn.session] = turn
        return chosen

    def _scored(self, turn: Turn) -> bool:
        return turn.last

    def _case(self, turn: Turn) -> EditCase:
        case = super()._case(turn)
        earlier = replace(turn, number=turn.number - 1)
        return replace(case, continues=self.case_id(earlier) if turn.number > 1 else None)


class MagicBrushEveryTurn(MagicBrushMultiTurn):
    """Multi-turn, and every turn is scored: how scores change from turn to turn, and what changes outside the edits.

    Turns are judged as in the other settings, by their true source, target and mask. `accumulated_change` compares with
    the session's first picture.
    """

    metrics = (*MagicBrush.metrics, "accumulated_change")
    setting = "multi-turn: turns applied to one's own results, every one scored"

    def _scored(self, turn: Turn) -> bool:
        return True

    def _case(self, turn: Turn) -> EditCase:
        case = super()._case(turn)
        earlier = [each for each in self.kept if each.session == turn.session and each.number < turn.number]
        first = self._open(earlier[0], earlier[0].input) if earlier else case.request.image
        own = case.truth_mask and case.truth_mask.resize(first.size, Image.Resampling.NEAREST)
        edited = Image.new("L", first.size)
        for mask in (own, *(self._true_mask(each, first.size) for each in earlier)):
            edited = None if edited is None or mask is None else ImageChops.lighter(edited, mask)
        return replace(case, truth=TurnHistory(first, edited))


def _sessions(path: Path) -> list[list[Turn]]:
    """The sessions of edit_sessions.json, `{img_id: [{input, mask, output, instruction}, ...]}`, turns in order."""
    try:
        sessions = [_turns(str(name), rows) for name, rows in json.loads(path.read_text()).items()]
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"data: {path} is not {{img_id: [{{input, mask, output, instruction}}, ...]}}: {error!r}"
        ) from None
    if not any(sessions):
        raise ValueError(f"data: {path} holds no turn")
    return sessions


def _turns(session: str, rows: list[dict]) -> list[Turn]:
    """The turns of a session, ordered by the numbers in their output names; without numbers, in the file's order."""
    matches = [NUMBER.search(row["output"]) for row in rows]
    numbers = [int(match[1]) for match in matches if match]
    if len(set(numbers)) < len(rows):
        numbers = list(range(1, len(rows) + 1))
    return [
        Turn(
            session=session,
            number=number,
            turns=len(rows),
            input=row["input"],
            output=row["output"],
            mask=row.get("mask") or "",
            instruction=row["instruction"],
            last=number == max(numbers),
        )
        for number, row in sorted(zip(numbers, rows, strict=True), key=lambda pair: pair[0])
    ]


def _captions(folder: Path, names: tuple[str, ...]) -> dict:
    path = next((p for name in names if (p := folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        captions = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"data: {path} is not JSON: {error}") from None
    if not isinstance(captions, dict):
        raise ValueError(f"data: {path} is not {{img_id: {{file: caption}}}}")
    return captions
