"""The tab where several mask sources and generators answer the request of the tab Edit."""

# No postponed annotations here, as in `edit_tab`.
import tempfile
from pathlib import Path

from regionedit.files import write_atomic
from regionedit.images import png
from regionedit.web import words
from regionedit.web.comparison import COLUMNS, MARKED, Comparer, sheet, study_items
from regionedit.web.edit_layout import EditLayout
from regionedit.web.edit_tab import EditTab, present
from regionedit.web.handlers import MODELS, SESSION, told
from regionedit.web.settings import Settings
from regionedit.web.sketch import Cut
from regionedit.web.studio import Studio

KEPT = 20
"""Cases of a session that the human-study items hold, the latest ones."""


def compare_tab(studio: Studio, layout: EditLayout, edit: EditTab) -> None:
    """Lay the tab out inside the current Blocks and connect it."""
    import gradio as gr

    comparer = Comparer(studio)
    cases = gr.State([], time_to_live=SESSION)
    gr.HTML(words.line("The picture, the words and the settings are those of the tab Edit."))
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
            seen = {picture: sheet(answers)} if any(a.result for a in answers) else {}
            rows = [a.row() for a in answers]
            yield seen | {table: rows, status: words.compared(len(answers), total)}
        if not any(a.result for a in answers):
            raise ValueError(f"None of them could edit; the first: {answers[0].failure}")
        cases = [*cases, answers][-KEPT:]
        with tempfile.TemporaryDirectory() as parting:
            shown, items = Path(parting) / "comparison.png", Path(parting) / "human_study_items.zip"
            write_atomic(shown, png(sheet(answers)))
            study_items(cases, items)
            yield {
                state: cases,
                download: gr.DownloadButton(value=str(shown), interactive=True),
                study: gr.DownloadButton(f"Human-study items ({len(cases)})", value=str(items), interactive=True),
            }

    state = cases
    run.click(
        told(compared),
        [edit.sketch, cases, *layout.cut, sources, systems, *layout.form.components()],
        [cases, status, picture, table, download, study],
        show_progress="minimal",
        show_progress_on=status,
        **MODELS,
    )
