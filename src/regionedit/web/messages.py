"""The status messages of the page as HTML; all input is escaped, so it cannot add markup."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regionedit.batch import Item
    from regionedit.records import EditResult, FoundRegion


def line(text: str, mood: str = "") -> str:
    """One line of text; `mood` is good, bad or empty and sets the colour."""
    return f'<p class="status-line {mood}" role="status">{escape(text)}</p>'


def progress(step: int, steps: int) -> str:
    """A progress bar for the denoising steps."""
    return _bar(step, steps, f"step {step} of {steps}" if step else "waiting for the models")


def compared(done: int, total: int) -> str:
    """A progress bar for the systems of a comparison."""
    return _bar(done, total, f"{done} of {total} compared")


def _bar(done: int, total: int, text: str) -> str:
    return f'<p class="status-line" role="status"><progress max="{total}" value="{done}"></progress> {escape(text)}</p>'


def region(found: FoundRegion | None, share: float, of_mask: Sequence[str] = ()) -> str:
    """The region's share of the picture, and how it was found; `of_mask`: notes about the mask file that it is from."""
    parts = [f"{share:.1%} of the picture will be edited" if share else "No region yet"]
    if found is not None:
        parts = parts if share else ["The region is empty: lower the threshold, or paint a region"]
        if found.mask_source != "drawn":
            parts.append(f"found by {found.mask_source} in {found.timings['region']:.2f} s")
    return "; ".join(filter(None, [*parts, *(of_mask or [found.note if found else ""])])) + "."


def batch(items: Sequence[Item], total: int) -> str:
    """A progress bar for a batch."""
    failed = sum(1 for item in items if item.failure)
    before = sum(1 for item in items if item.share is None and not item.failure)
    counts = {"finished before": before, "failed": failed}
    parts = [f"{len(items)} of {total}", *(f"{count} {what}" for what, count in counts.items() if count)]
    return _bar(len(items), total, "; ".join(parts))


def result(result: EditResult, outside: int) -> str:
    """How many pixels changed `outside` the region, the edited share and the time."""
    pixels = "1 pixel" if outside == 1 else f"{outside:,} pixels"
    seconds = sum(result.timings.values())
    parts = [f"{pixels} changed outside the region", f"{result.share:.1%} of the picture edited in {seconds:.1f} s"]
    return "; ".join(filter(None, [*parts, result.note])) + "."
