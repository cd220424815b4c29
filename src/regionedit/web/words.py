"""What the page says, as HTML that can hold no markup of anybody's input."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regionedit.batch import Item
    from regionedit.records import EditResult, FoundRegion


def line(text: str, mood: str = "") -> str:
    """One line of text; `mood` is good, bad or nothing."""
    return f'<p class="said {mood}" role="status">{escape(text)}</p>'


def progress(step: int, steps: int) -> str:
    """A bar for the denoising steps."""
    return _bar(step, steps, f"step {step} of {steps}" if step else "waiting for the models")


def compared(done: int, total: int) -> str:
    """A bar for the systems of a comparison."""
    return _bar(done, total, f"{done} of {total} compared")


def _bar(done: int, total: int, text: str) -> str:
    return f'<p class="said" role="status"><progress max="{total}" value="{done}"></progress> {escape(text)}</p>'


def region(found: FoundRegion | None, share: float) -> str:
    """What the region is, and how it was found."""
    said = [f"{share:.1%} of the picture will be edited" if share else "No region yet"]
    if found is not None:
        said = said if share else ["The region is empty: lower the threshold, or paint it"]
        said.append(f"found by {found.mask_source} in {found.timings['region']:.2f} s")
    return "; ".join(filter(None, [*said, found.note if found else ""])) + "."


def batch(items: Sequence[Item], total: int) -> str:
    """How far a batch is."""
    failed = sum(1 for item in items if item.failure)
    before = sum(1 for item in items if item.share is None and not item.failure)
    counts = {"finished before": before, "failed": failed}
    said = [f"{len(items)} of {total}", *(f"{count} {what}" for what, count in counts.items() if count)]
    return _bar(len(items), total, "; ".join(said))


def result(result: EditResult, outside: int) -> str:
    """What the edit did.

    Args:
        outside: pixels that changed outside the region, as they were counted.
    """
    pixels = "1 pixel" if outside == 1 else f"{outside:,} pixels"
    seconds = sum(result.timings.values())
    said = [f"{pixels} changed outside the region", f"{result.share:.1%} of the picture edited in {seconds:.1f} s"]
    return "; ".join(filter(None, [*said, result.note])) + "."
