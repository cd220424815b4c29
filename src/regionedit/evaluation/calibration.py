"""Checks of the evaluation itself against known numbers: a published row, and a checksum that needs no editor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from regionedit.config import EvaluateConfig
from regionedit.evaluation.backbones import load_backbone
from regionedit.evaluation.editing import TOGETHER, chunks
from regionedit.evaluation.embedders import Clip
from regionedit.records import EditCase

# CLIP-T of MagicBrush's own target pictures with their local descriptions, ViT-B/32, by number of scored cases: all
# turns, final turns (github.com/OSU-NLP-Group/MagicBrush, issue 27; two runs to the same five digits).
CHECKSUMS = {1053: 0.28259, 535: 0.28554}
CHECKSUM_BENCHMARKS = ("magicbrush", "magicbrush_multi_turn")
CHECKSUM_JUDGE = "ViT-B-32,openai"
# Half or single precision changes the mean far less than this; other captions change it by .02.
CHECKSUM_TOLERANCE = 0.002


def check_expected(summary: dict, expected: Mapping[str, float], tolerance: float) -> list[str]:
    """Compare a summary's means with known ones (metric -> mean).

    Returns:
        A line for each metric: measured and expected mean, `within` or `OUTSIDE` the tolerance, the difference.
    """
    lines = []
    for name, value in expected.items():
        score = summary["metrics"].get(name)
        if score is None:
            lines.append(f"{name}: not measured; expected {value:.4f}")
            continue
        off = score["mean"] - value
        verdict = "within" if abs(off) <= tolerance else "OUTSIDE"
        lines.append(f"{name}: {score['mean']:.4f}, expected {value:.4f} ± {tolerance:g}: {verdict} ({off:+.4f})")
    return lines


def check_data(config: EvaluateConfig, cases: Iterable[EditCase]) -> list[str]:
    """The verdict on MagicBrush's checksum, if one is known for this benchmark and CLIP; otherwise []."""
    if config.benchmark not in CHECKSUM_BENCHMARKS or config.judge != CHECKSUM_JUDGE:
        return []
    return [checksum_verdict(*magicbrush_checksum(cases, load_backbone("judge", config.judge, config.device)))]


def magicbrush_checksum(cases: Iterable[EditCase], judge: Clip) -> tuple[float, int]:
    """Mean cosine between target picture and target caption over the scored cases, and the number of these cases.

    Raises:
        ValueError: a scored case has no target picture or no caption, or there is no scored case.
    """
    total, count = 0.0, 0
    for chunk in chunks((case for case in cases if case.scored), TOGETHER):
        for case in chunk:
            if case.truth_image is None or case.request.captions is None:
                raise ValueError(f"{case.id}: the checksum needs target pictures and captions")
        pictures = judge.unit_pictures([case.truth_image.convert("RGB") for case in chunk])
        texts = judge.unit_texts([case.request.captions.target for case in chunk])
        total += float((pictures * texts).sum())
        count += len(chunk)
    if not count:
        raise ValueError("data: the checksum needs cases, and none is scored")
    return total / count, count


def checksum_verdict(found: float, n: int) -> str:
    """One line: do data, captions and CLIP (OpenAI's ViT-B/32) reproduce MagicBrush's number for n scored cases?"""
    if n not in CHECKSUMS:
        whole = " or ".join(f"{known:,}" for known in CHECKSUMS)
        return f"MagicBrush checksum: {found:.5f} over {n:,} cases; known only for {whole} cases"
    known = CHECKSUMS[n]
    line = f"MagicBrush checksum: CLIP-T of the target pictures {found:.5f}, known {known:.5f}"
    if abs(found - known) <= CHECKSUM_TOLERANCE:
        return f"{line}: right"
    return f"{line}: WRONG; about 0.307 means global instead of local descriptions; otherwise check CLIP, split, resize"
