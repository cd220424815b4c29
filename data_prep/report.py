"""Write one self-contained HTML page about a folder of shards, which can be mailed and opened anywhere.

    python data_prep/report.py --data data/crawl       # writes data/crawl/report.html, and index.json on the way

The page shows counts and sizes, the balance of operations, lengths of captions and instructions, pictures with their
instruction and target caption, and for every reason to leave samples out some examples. If a shard cannot be read, the
command ends with exit code 1.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from index import LONGEST, build_index, left_out
from PIL import Image
from sidecars import read_instructions

from regionedit.command_line import errors_in_one_line
from regionedit.data.index import PICTURES, index_tar
from regionedit.files import write_atomic
from regionedit.images import MAX_PIXELS, data_uri, upright_rgb

NAME = "report.html"
THUMBNAIL = 192  # pixels of the longer side
EXAMPLES, PER_REASON = 24, 6
SHARDS_SEEN = 16  # number of shards that examples are taken from, spread evenly over the folder
HISTOGRAMS = {"caption_words": "caption", "instruction_words": "instruction", "target_words": "target caption"}


def write_report(folder: Path, workers: int) -> dict[str, Any]:
    """Index the folder and write its report; returns the index. Raises ValueError: no shards."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    index = build_index(folder, workers)
    kept, marked = _examples(folder, [entry["shard"] for entry in index["shards"] if "broken" not in entry])
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    html = environment.get_template("report.html").render(
        title=folder.resolve().name,
        totals=index["totals"],
        index=index,
        operations=_bars(index["operations"]),
        reasons=_bars(index["marks"] | {f"dropped: {why}": n for why, n in index["dropped"].items()}),
        lengths=_histograms(index),
        longest=LONGEST,
        kept=kept,
        marked=marked,
    )
    write_atomic(folder / NAME, html.encode())
    return index


def _bars(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Rows of a bar chart, largest first."""
    largest, total = max(counts.values(), default=1), sum(counts.values())
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"name": k, "count": v, "share": v / total, "width": 100 * v / largest} for k, v in rows if v]


def _histograms(index: Mapping[str, Any]) -> str:
    """Histograms of the number of words in the texts, as a picture in a data URI; empty if there are no texts."""
    drawn = {title: index[name] for name, title in HISTOGRAMS.items() if index[name]}
    if not drawn:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(drawn), 2.6), dpi=110, layout="constrained")
    for axes, (title, counts) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items(), strict=True):
        axes.bar([int(words) for words in counts], list(counts.values()), width=1.0)
        axes.set(title=title, xlabel="words")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return data_uri(buffer.getvalue())


def _examples(folder: Path, shards: list[str]) -> tuple[list[dict], dict[str, list[dict]]]:
    """Cards of samples that stay, and for each reason of some that are left out; taken evenly across the folder."""
    chosen = shards[:: max(1, len(shards) // SHARDS_SEEN)][:SHARDS_SEEN]
    kept: list[dict] = []
    marked: dict[str, list[dict]] = {}
    for shard in chosen:
        members, out = index_tar(folder / f"{shard}.tar"), left_out(folder, shard)
        entries = read_instructions(folder, shard).entries
        stay = [key for key in members if key not in out]
        each = -(-EXAMPLES // len(chosen))
        with (folder / f"{shard}.tar").open("rb") as file:
            for key in stay[:: max(1, len(stay) // each)][:each]:
                kept.append(_card(file, key, members[key], entries.get(key, {})))
            for key, reasons in out.items():
                for reason in reasons:
                    cards = marked.setdefault(reason, [])
                    if key in members and len(cards) < PER_REASON:
                        cards.append(_card(file, key, members[key], entries.get(key, {})))
    return kept, dict(sorted(marked.items()))


def _card(file: io.BufferedReader, key: str, parts: Mapping[str, tuple[int, int]], entry: Mapping[str, Any]) -> dict:
    def stored(suffix: str) -> bytes:
        offset, length = parts[suffix]
        file.seek(offset)
        return file.read(length)

    suffix = next((suffix for suffix in PICTURES if suffix in parts), None)
    caption = stored("txt").decode(errors="replace").strip() if "txt" in parts else ""
    return {
        "key": key,
        "picture": _thumbnail(stored(suffix)) if suffix else "",
        "caption": entry.get("source_caption") or caption,
        "instruction": entry.get("instruction", ""),
        "target": entry.get("target_caption", ""),
        "operation": entry.get("operation", ""),
    }


def _thumbnail(data: bytes) -> str:
    """A small JPEG as a data URI; empty if the data is not a picture."""
    try:
        picture = Image.open(io.BytesIO(data))
        if picture.width * picture.height > MAX_PIXELS:
            return ""
        picture = upright_rgb(picture)
    except Exception:  # decoders raise all kinds of errors on damaged files: OSError, SyntaxError, ...
        return ""
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return data_uri(buffer.getvalue(), "jpeg")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of shards")
    parser.add_argument("--workers", type=int, default=4, help="threads")
    arguments = parser.parse_args(argv)
    with errors_in_one_line("report.py"):
        index = write_report(arguments.data, max(1, arguments.workers))
    print(f"{index['totals']['samples']:,} samples: {arguments.data / NAME}")
    for reason in index["broken"].values():
        print(f"report.py: {reason}", file=sys.stderr)
    if index["broken"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
