"""Draw docs/figures/every_scale.png: one picture, an instruction of every kind, the found region and the edit.

    python -m experiments.scale_figure

Upper row: the region of the default editor, configs/edit_microworld.yaml; lower row: its edit.
"""

from __future__ import annotations

import argparse
import io
import textwrap
from pathlib import Path

from matplotlib.figure import Figure

from regionedit.display import overlay
from regionedit.editor import Editor
from regionedit.files import write_atomic
from regionedit.images import open_picture
from regionedit.records import EditRequest

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "examples" / "circle.png"
INSTRUCTIONS = (
    "replace the yellow circle with a green cross",
    "make the green triangle cyan",
    "remove the yellow circle",
    "make the green triangle bigger",
    "add a pink square above the yellow circle",
    "change the background to plain black",
    "make the picture sepia",
    "make the yellow circle yellow",
)
TITLE_WIDTH = 18  # characters
SIDE = 256  # pixels a side of a shown region, so that its outline is thin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "every_scale.png", help="the figure")
    out = parser.parse_args().out
    editor = Editor.from_config(ROOT / "configs" / "edit_microworld.yaml")
    source = open_picture(PICTURE)
    figure = Figure(figsize=(13, 4), layout="constrained")
    axes = figure.subplots(2, len(INSTRUCTIONS))
    for column, instruction in enumerate(INSTRUCTIONS):
        edit = editor.edit(EditRequest(source, instruction))
        region = overlay(source.resize((SIDE, SIDE), 0), edit.mask.resize((SIDE, SIDE), 0))
        for row, picture in enumerate((region, edit.image)):
            axes[row, column].imshow(picture, interpolation="nearest")
            axes[row, column].axis("off")
        axes[0, column].set_title(textwrap.fill(instruction, TITLE_WIDTH), fontsize=10)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    write_atomic(out, drawn.getvalue())


if __name__ == "__main__":
    main()
