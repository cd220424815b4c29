"""Measures how well the change map of a source and a result finds where the edit landed, when the result also has a
global shift, colour drift or JPEG noise.

    python experiments/change_map_study.py --out docs/study/change_map.json

Results are rendered with a known place of the change: the requested edit, the same kind of edit of another object, or
both. Then they are disturbed. Each score of the map is compared with the same score of the known place. The row
`pixel difference` thresholds the difference of the pixels without alignment, as the metric `change_iou` does.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import rounded, show, write_json
from PIL import Image
from rich.progress import track

from regionedit.evaluation.change_map import TAU, change_map
from regionedit.evaluation.landing_metrics import LANDING, landing
from regionedit.evaluation.region_metrics import iou
from regionedit.microworld.edits import Edit, sample_edit
from regionedit.microworld.renderer import render
from regionedit.microworld.splits import sample, scene_rng
from regionedit.microworld.truth import truth_mask

OPERATIONS = ("replace", "recolour", "remove", "resize", "add", "background")
SEED = 31
TRIES = 20  # to find an edit of another place


@dataclass(frozen=True)
class Known:
    """A source, a result, and where they differ.

    Args:
        truth_HW: bool, where the instruction requests a change.
        landed_HW: bool, where the result differs.
    """

    source: Image.Image
    result: Image.Image
    truth_HW: np.ndarray
    landed_HW: np.ndarray
    operation: str
    placement: str


def known_places(count: int) -> list[Known]:
    """Up to three results of each validation edit: the right one, one elsewhere, and both changes together."""
    found = []
    for index in range(count):
        edit = sample("validation", SEED, index, OPERATIONS)
        other = edit_elsewhere(edit, index)
        source, right = Image.fromarray(_rendered(edit.source)), _rendered(edit.target)
        truth_HW = truth_mask(edit) > 0.5
        places = {"requested": (right, truth_HW)}
        if other is not None:
            wrong, wrong_HW = _rendered(other.target), truth_mask(other) > 0.5
            places["elsewhere"] = (wrong, wrong_HW)
            touched_HW = truth_mask(other) > 0
            places["both"] = (np.where(touched_HW[..., None], wrong, right), truth_HW | wrong_HW)
        found += [
            Known(source, Image.fromarray(result), truth_HW, landed_HW, edit.operation, placement)
            for placement, (result, landed_HW) in places.items()
        ]
    return found


def edit_elsewhere(edit: Edit, index: int) -> Edit | None:
    """An edit of another object of the same scene, whose region does not touch the requested one; None if none."""
    rng = scene_rng("validation", SEED + 1, index)
    requested_HW = truth_mask(edit) > 0
    for _ in range(TRIES):
        other = sample_edit(edit.source, rng, str(rng.choice(("replace", "recolour", "remove"))))
        if other is not None and not (requested_HW & (truth_mask(other) > 0)).any():
            return other
    return None


def shifted(picture: Image.Image, pixels: int) -> Image.Image:
    """The picture moved down and right; its border is repeated."""
    values = np.asarray(picture)
    padded = np.pad(values, ((pixels, 0), (pixels, 0), (0, 0)), mode="edge")
    return Image.fromarray(padded[: values.shape[0], : values.shape[1]])


def half_shifted(picture: Image.Image) -> Image.Image:
    """The picture moved down and right by half a pixel, bilinear."""
    return picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, -0.5, 0, 1, -0.5), Image.Resampling.BILINEAR)


def drifted(picture: Image.Image, strength: float) -> Image.Image:
    """Channels with another gain and offset; strength 1 changes values by up to 0.16 of the range."""
    gain, offset = np.array([1.08, 1.0, 0.92]), np.array([0.08, -0.06, 0.07])
    values = np.asarray(picture, np.float32) / 255
    values = values * (1 + strength * (gain - 1)) + strength * offset
    return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """The picture after JPEG with the usual chroma subsampling (4:2:0)."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


DISTURBANCES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "none": lambda p: p,
    "shift 0.5 px": half_shifted,
    "shift 1 px": lambda p: shifted(p, 1),
    "shift 2 px": lambda p: shifted(p, 2),
    "shift 3 px": lambda p: shifted(p, 3),
    "drift, half": lambda p: drifted(p, 0.5),
    "drift": lambda p: drifted(p, 1.0),
    "JPEG 95": lambda p: jpeg(p, 95),
    "JPEG 85": lambda p: jpeg(p, 85),
    "JPEG 75": lambda p: jpeg(p, 75),
    "shift 3 px, drift, JPEG 75": lambda p: jpeg(drifted(shifted(p, 3), 1.0), 75),
}


def pixel_difference(source: Image.Image, result: Image.Image) -> np.ndarray:
    """Bool [H, W]: the mean over the channels of the absolute difference is above TAU."""
    a, b = (np.asarray(picture, np.float32) / 255 for picture in (source, result))
    return np.abs(a - b).mean(-1) > TAU


MAPS = {"change map": change_map, "pixel difference": pixel_difference}


def agreement(known: list[Known], disturb: Callable, find: Callable) -> dict[str, float | None]:
    """IoU of the found and the known place, and for each score its mean absolute difference from the known one's.

    `nothing_found` is the share of the results in which the map finds no change, so that scores other than the IoU have
    no value; they are left out of the differences. `false_alarm` is the share of the unedited sources in which it finds
    any change after the same disturbance.
    """
    ious, empty, apart = [], [], {name: [] for name in LANDING}
    alarms = [bool(find(source, disturb(source)).any()) for source in {id(c.source): c.source for c in known}.values()]
    for case in known:
        found_HW = find(case.source, disturb(case.result))
        ious.append(iou(found_HW, case.landed_HW))
        empty.append(not found_HW.any())
        found, true = (landing(place_HW, case.truth_HW) for place_HW in (found_HW, case.landed_HW))
        for name in LANDING:
            apart[name].append(abs(found[name] - true[name]))
    defined = {name: [value for value in values if value == value] for name, values in apart.items()}
    differences = {name: float(np.mean(values)) if values else None for name, values in defined.items()}
    shares = {"nothing_found": float(np.mean(empty)), "false_alarm": float(np.mean(alarms))}
    return {"map_iou": float(np.mean(ious))} | differences | shares


def measure(known: list[Known]) -> dict:
    """{map: {disturbance: agreement}} for edits of objects and, apart, for edits of the background."""
    groups = {
        "objects": [case for case in known if case.operation != "background"],
        "background": [case for case in known if case.operation == "background"],
    }
    return {
        group: {
            name: {
                disturbance: agreement(cases, disturb, find)
                for disturbance, disturb in track(DISTURBANCES.items(), description=f"{group}, {name}")
            }
            for name, find in MAPS.items()
        }
        | {"n": len(cases)}
        for group, cases in groups.items()
    }


def _rendered(scene) -> np.ndarray:
    return render([scene])[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100, help="validation edits")
    parser.add_argument("--out", type=Path, default=Path("docs/study/change_map.json"), help="file to write")
    args = parser.parse_args()
    results = rounded(measure(known_places(args.samples)))
    write_json(args.out, results)
    for group, tables in results.items():
        for name in MAPS:
            show(f"{name}: {group}, {tables['n']} results", tables[name])


if __name__ == "__main__":
    main()
