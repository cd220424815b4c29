"""Draw docs/figures/every_scale.png: one picture, an instruction of every kind, the found region and the edit.

    python -m experiments.scale_figure

Upper row: the region of the default editor, configs/edit_microworld.yaml; lower row: its edit.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from regionedit.command_line import load_config
from regionedit.config import EditConfig
from regionedit.display import grid, overlay
from regionedit.editor import Editor
from regionedit.files import write_atomic
from regionedit.images import open_picture, png
from regionedit.records import EditRequest

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "examples" / "cross.png"
INSTRUCTIONS = (
    "replace the blue cross with a green square",
    "make the red triangle cyan",
    "remove the blue cross",
    "make the red triangle smaller",
    "add a yellow circle left of the blue cross",
    "change the background to plain gray",
    "make the picture darker",
    "make the red triangle red",
)
CELL = 176


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "every_scale.png", help="the figure")
    parser.add_argument("--checkpoint", help="region predictor: a folder; default: that of the configuration")
    options = parser.parse_args()
    config = load_config(EditConfig, ROOT / "configs" / "edit_microworld.yaml")
    if options.checkpoint:
        config.region.checkpoint = options.checkpoint
    editor = Editor.from_config(config)
    source = open_picture(PICTURE)
    edits = [editor.edit(EditRequest(source, instruction)) for instruction in INSTRUCTIONS]
    regions = [overlay(source.resize((CELL, CELL), 0), edit.mask.resize((CELL, CELL), 0)) for edit in edits]
    write_atomic(options.out, png(grid([regions, [edit.image for edit in edits]], _titles(), CELL)))


def _titles() -> list[str]:
    """The instructions, in as many characters as fit over a cell."""
    return [instruction[: CELL // 6] for instruction in INSTRUCTIONS]


if __name__ == "__main__":
    main()
