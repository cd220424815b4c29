"""The tab that edits the request of the tab Edit with several mask sources and editors."""

# No postponed annotations, for the reason given in `edit_tab`.
import tempfile
from pathlib import Path

from regionedit.files import write_atomic
from regionedit.images import png
from regionedit.web import words
from regionedit.web.comparison import COLUMNS, MARKED, Comparer, sheet, study_items
from regionedit.web.edit_layout import EditLayout
from regionedit.web.edit_tab import EditTab, present
from regionedit.web.handlers import MODELS, SESSION, errors_shown
from regionedit.web.settings import Settings
from regionedit.web.sketch import Cut
from regionedit.web.studio import Studio

KEPT = 20
"""The human-study items contain this many of the session's latest cases."""


def compare_tab(studio: Studio, layout: EditLayout, edit: EditTab) -> None:
    """Add the tab to the current Blocks and connect its events."""
    import gradio as gr

    comparer = Comparer(studio)
    cases = gr.State([], time_to_live=SESSION)
    gr.HTML(words.line("Picture, instruction and settings come from the tab Edit."))
    sources = gr.CheckboxGroup(
        [MARKED, *comparer.mask_sources()],
        value=[studio.editor.config.mask_source] if studio.editor.config.mask_source in comparer.mask_sources() else [],
        label="Where to edit",
        elem_id="compare-sources",
    )
    systems = gr.CheckboxGroup(
        list(studio.config.systems),
        value=list(studio.config.systems)[:1],
        label="Other editors",
        visible=bool(studio.config.systems),
        elem_id="compare-systems",
    )
    run = gr.Button("Compare", variant="primary", elem_id="compare-run")
    status = gr.HTML(words.line(""), elem_id="compare-status")
    picture = gr.Image(
        show_label=False, format="png", interactive=False, elem_id="compare-picture", buttons=["fullscreen"]
    )
    table = gr.Dataframe(headers=list(COLUMNS), label="Times and scores", interactive=False, elem_id="compare-table")
    with gr.Row():
        download = gr.DownloadButton("Download picture", interactive=False, elem_id="compare-download")
        study = gr.DownloadButton("Human-study items", interactive=False, elem_id="compare-study")

    def compared(sketch, cases, threshold, grow, feather, sources, systems, *values):
        cut, sketch = Cut(threshold, grow, feather), present(sketch)
        answers, total = [], len(sources) + len(systems)
        yield {status: words.compared(0, total)}
        for answer in comparer.compare(Settings(*values), sketch, cut, sources, systems):
            answers.append(answer)
            updates = {picture: sheet(answers)} if any(a.result for a in answers) else {}
            rows = [a.row() for a in answers]
            yield updates | {table: rows, status: words.compared(len(answers), total)}
        if not any(a.result for a in answers):
            raise ValueError(f"systems: none could edit the picture; the first error: {answers[0].failure}")
        cases = [*cases, answers][-KEPT:]
        with tempfile.TemporaryDirectory() as temporary:
            shown, items = Path(temporary) / "comparison.png", Path(temporary) / "human_study_items.zip"
            write_atomic(shown, png(sheet(answers)))
            study_items(cases, items)
            yield {
                state: cases,
                download: gr.DownloadButton(value=str(shown), interactive=True),
                study: gr.DownloadButton(f"Human-study items ({len(cases)})", value=str(items), interactive=True),
            }

    state = cases
    run.click(
        errors_shown(compared),
        [edit.sketch, cases, *layout.cut, sources, systems, *layout.form.components()],
        [cases, status, picture, table, download, study],
        show_progress="minimal",
        show_progress_on=status,
        **MODELS,
    )
