"""Edit one picture, a folder of pictures, or a JSONL or CSV of requests.

    python infer.py --config configs/edit_microworld.yaml --image in.png --instruction "make the ring blue" --out o/one
    python infer.py --config configs/edit_microworld.yaml --requests requests.jsonl --out o/many

One picture: result.png, mask.png, probability.png, overlay.png and run.json are written to OUT. Many: these files are
written to OUT/{id}/, OUT/contact_sheet.png shows the edits, and running the same command again continues where it
stopped.
--workers N edits in N processes, each on its own GPU. Exit code 2: a wrong argument; 1: an edit failed.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from regionedit.command_line import parse_command, run_command, short_line
from regionedit.config import InferConfig
from regionedit.error_log import NAME as LOG
from regionedit.error_log import kept_traceback, log_to
from regionedit.files import is_folder, remove_leftovers, require_writable
from regionedit.images import box_mask, require_inside
from regionedit.originals import as_configured
from regionedit.picture_folders import NAME as SKIPPED
from regionedit.picture_folders import Skipped, folder_requests, write_skipped
from regionedit.records import Captions, EditFailure, EditResult
from regionedit.request_files import (
    RequestFile,
    mask_reading,
    parse_box,
    parse_click,
    read_requests,
    require_inputs_kept,
    split_instructions,
)

IN_THE_LINES = (
    "image", "instruction", "source_caption", "target_caption", "mask", "mask_is", "mask_soft", "mask_value",
    "mask_operations", "box", "click",
)  # fmt: skip
"""Arguments that a file of requests replaces."""

# The editor is imported late and appears in no annotation, because the parser resolves annotations: a wrong argument is
# reported without loading torch.


def main(argv: Sequence[str] | None = None) -> int:
    warnings.filterwarnings("ignore", module="PIL")  # infer.py itself refuses large pictures, in one line
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars would hide the one line that matters
    config = parse_command(InferConfig, one_instruction(sys.argv[1:] if argv is None else argv))
    return run_command("infer.py", lambda: run(config), config.out, config.debug)


def one_instruction(argv: Sequence[str]) -> list[str]:
    """The arguments with several --instruction joined by semicolons; the parser alone would keep only the last."""
    rest: list[str] = []
    texts: list[str] = []
    remaining = list(argv)
    while remaining:
        argument = remaining.pop(0)
        if argument == "--instruction" and remaining:
            texts.append(remaining.pop(0))
        elif argument.startswith("--instruction="):
            texts.append(argument.partition("=")[2])
        else:
            rest.append(argument)
    return rest + ([f"--instruction={'; '.join(texts)}"] if texts else [])


def run(config: InferConfig) -> int:
    """Check the arguments before the slow imports, then edit."""
    requests, skipped = read_arguments(config)
    alone = len(requests) == 1 and not config.requests and not is_folder(config.image)
    for request in requests:
        require_inputs_kept(request, Path(config.out) if alone else Path(config.out, request.id))
    opened = requests[0].open(config.max_pixels) if alone else None
    if opened is not None:
        as_configured(opened.image, config.depth, config.strip_metadata)
        if opened.box:
            box_mask(opened.image.size, opened.box)
        require_inside(opened.image.size, opened.click or ())
    from regionedit.editor import Editor

    editor = Editor.from_config(config)
    print(f"editing {editor.computes}", flush=True)
    if opened is None:
        return edit_many(editor, requests, skipped, config)
    (outcome,) = editor.edit_batch([opened])
    if isinstance(outcome, EditFailure):
        if config.debug:
            raise outcome.error
        return _say(f"the edit failed: {outcome.reason}{kept_traceback(config.out, outcome.error, 'the edit')}", 1)
    remove_leftovers(config.out)
    outcome.save(config.out)
    print(f"{Path(config.out) / 'result.png'}: {_summary(outcome)}")
    return 0


def read_arguments(config: InferConfig) -> tuple[list[RequestFile], list[Skipped]]:
    """The requests that the arguments name, and the files of a folder that are skipped.

    Raises ValueError: missing or contradictory arguments, or files that do not exist.
    """
    require_writable(config.out)
    if config.workers < 1:
        raise ValueError(f"workers: {config.workers}, at least 1 is needed")
    if config.mask and config.box:
        raise ValueError("mask, box: give one of them")
    if config.requests:
        default = InferConfig()
        for name in IN_THE_LINES:
            if getattr(config, name) != getattr(default, name):
                raise ValueError(f"{name}: with --requests, give it in the lines of the file")
        return read_requests(config.requests), []
    if not config.image:
        raise ValueError("image: give --image FILE or FOLDER, or --requests FILE.jsonl")
    like = RequestFile(
        image=Path(config.image),
        instructions=split_instructions(config.instruction),
        seed=config.seed,
        captions=Captions.given(config.source_caption, config.target_caption),
        mask=Path(config.mask) if config.mask else None,
        box=parse_box(config.box) if config.box else None,
        click=parse_click(config.click) if config.click else None,
        id=Path(config.image).stem,
        mask_operations=config.mask_operations,
        reading=mask_reading(vars(config), bool(config.mask)),
    )
    masks = Path(config.mask) if is_folder(config.mask) else None
    if is_folder(config.image):
        return folder_requests(Path(config.image), like, masks, Path(config.out))
    if masks is not None:
        raise ValueError(
            f"mask: {masks} is a folder, but the image is one file; give a mask file, or a folder of images"
        )
    return [like], []


def edit_many(editor, requests: list[RequestFile], skipped: list[Skipped], config: InferConfig) -> int:
    """Edit in portions, skip finished requests, record what failed or was skipped, and write the contact sheet."""
    from rich.progress import track

    from regionedit.batch import edit_in_parallel, edit_into, write_contact_sheet, write_failures

    out, portion = Path(config.out), 4 * config.batch
    log_to(out)
    remove_leftovers(out)
    workers = min(config.workers, len(requests))
    if workers > 1:
        outcomes = edit_in_parallel(editor.config, requests, out, portion, workers)
    else:
        outcomes = edit_into(editor, requests, out, portion)
    items = list(track(outcomes, "editing", len(requests)))
    write_failures(out, items)
    write_skipped(out, skipped)
    write_contact_sheet(out, [request.id for request in requests])
    shares = [item.share for item in items if item.share is not None]
    failed = [item for item in items if item.failure]
    earlier = len(items) - len(shares) - len(failed)
    average = f", {sum(shares) / len(shares):.1%} of a picture on average" if shares else ""
    print(f"{out}: {len(shares)} edited{average}; {earlier} finished before; {len(failed)} failed{_said(skipped, out)}")
    if not failed:
        return 0
    first = f"first {failed[0].id}: {failed[0].failure}"
    return _say(f"{len(failed)} of {len(requests)} failed, see {out / 'failures.jsonl'} and {LOG}; {first}", 1)


def _said(skipped: list[Skipped], out: Path) -> str:
    if not skipped:
        return ""
    return f"; {len(skipped)} skipped, see {out / SKIPPED} (first: {skipped[0].path.name}: {skipped[0].reason})"


def _summary(result: EditResult) -> str:
    seconds = ", ".join(f"{stage} {value:.2f} s" for stage, value in result.timings.items())
    return f"{result.share:.1%} of the picture edited ({seconds})" + (f"; {result.note}" if result.note else "")


def _say(message, code: int) -> int:
    print(f"infer.py: error: {short_line(message)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
