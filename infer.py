"""Edit one picture, a folder of pictures, or a JSONL of requests.

    python infer.py --config configs/edit_microworld.yaml --image in.png --instruction "make the ring blue" --out o/one
    python infer.py --config configs/edit_microworld.yaml --requests requests.jsonl --out o/many

One picture: OUT receives result.png, mask.png, probability.png, overlay.png and run.json. Many: OUT/{id}/ receives
them, OUT/contact_sheet.png shows them together, and running the same command again goes on where it stopped.
--workers N edits them in N processes, each on a GPU of its own. A bad argument exits with 2, a failed edit with 1.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regionedit.command_line import parse_command
from regionedit.config import EditConfig
from regionedit.images import box_mask, require_inside
from regionedit.records import EditFailure, EditResult
from regionedit.request_files import (
    RequestFile,
    folder_requests,
    make_instructions,
    parse_box,
    parse_click,
    read_requests,
    split_instructions,
)

# The editor is imported late and never named in an annotation: the parser resolves what a module's annotations import,
# and a bad argument must not wait for torch.


@dataclass
class InferConfig(EditConfig):
    """`python infer.py --config FILE`: edit pictures.

    Args:
        image: a picture, or a folder of pictures.
        instruction: what to change, for example "make the red circle blue". For several, separate them by semicolons
            or give --instruction several times.
        requests: instead of image and instruction: a JSONL with the fields image, instruction or instructions, and if
            wanted seed, source_caption, target_caption, mask, box, click, id; paths are relative to it.
        out: folder that receives the results.
        seed: of the noise; the same seed gives the same picture.
        source_caption: what the picture shows; left empty it is described where it is needed.
        target_caption: what the edited picture shall show; left empty it is described where it is needed.
        mask: a drawn mask of the picture's size, white = edit; it takes the place of a mask_source that reads none.
        box: x0,y0,x1,y1 in pixels of the upright picture; it takes the place of a mask_source that reads none.
        click: x,y in pixels of the upright picture, or several: "x,y;x,y"; Segment Anything (region.sam) finds the
            thing there, unless mask_source says what else the click is for.
        workers: processes that share many requests, each with models of its own; on several GPUs, one for each.
    """

    image: str = ""
    instruction: str = ""
    requests: str = ""
    out: str = "outputs/edit"
    seed: int = 0
    source_caption: str = ""
    target_caption: str = ""
    mask: str = ""
    box: str = ""
    click: str = ""
    workers: int = 1


def main(argv: Sequence[str] | None = None) -> int:
    warnings.filterwarnings("ignore", module="PIL")  # of large pictures; they are refused in one line of our own
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # loading bars would bury the one line that counts
    config = parse_command(InferConfig, one_instruction(sys.argv[1:] if argv is None else argv))
    try:
        return run(config)
    except ValueError as error:
        return _say(error, 2)
    except OSError as error:
        return _say(error.strerror or error, 1)
    except KeyboardInterrupt:
        return _say("stopped; run the same command again to go on", 130)
    except Exception as error:  # the last resort: a person who edits pictures has no use for a stack trace
        return _say(f"{type(error).__name__}: {error}", 1)


def one_instruction(argv: Sequence[str]) -> list[str]:
    """The arguments with several --instruction as one, separated by semicolons; the parser would keep the last only."""
    rest: list[str] = []
    texts: list[str] = []
    waiting = list(argv)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--instruction" and waiting:
            texts.append(waiting.pop(0))
        elif argument.startswith("--instruction="):
            texts.append(argument.partition("=")[2])
        else:
            rest.append(argument)
    return rest + ([f"--instruction={'; '.join(texts)}"] if texts else [])


def run(config: InferConfig) -> int:
    """Check the arguments, and only then import what is slow."""
    requests = read_arguments(config)
    alone = len(requests) == 1 and not config.requests and not Path(config.image).is_dir()
    opened = requests[0].open(config.max_pixels) if alone else None
    if opened is not None:
        if opened.box:
            box_mask(opened.image.size, opened.box)
        require_inside(opened.image.size, opened.click or ())
    from regionedit.editor import Editor

    editor = Editor.from_config(config)
    if opened is None:
        return edit_many(editor, requests, config)
    (outcome,) = editor.edit_batch([opened])
    if isinstance(outcome, EditFailure):
        return _say(f"the edit failed: {outcome.reason}", 1)
    outcome.save(config.out)
    print(f"{Path(config.out) / 'result.png'}: {_summary(outcome)}; {editor.computes}")
    return 0


def read_arguments(config: InferConfig) -> list[RequestFile]:
    """The requests that the arguments name.

    Raises:
        ValueError: arguments that are missing, contradict each other or name what is not there.
    """
    if Path(config.out).exists() and not Path(config.out).is_dir():
        raise ValueError(f"out: {config.out} is a file, a folder is needed")
    if config.workers < 1:
        raise ValueError(f"workers: {config.workers}, at least 1 is needed")
    if config.mask and config.box:
        raise ValueError("mask, box: give one of them")
    if config.requests:
        for name in ("image", "instruction", "source_caption", "target_caption", "mask", "box", "click"):
            if getattr(config, name):
                raise ValueError(f"{name}: with --requests it belongs into the file's lines")
        return read_requests(config.requests)
    if not config.image:
        raise ValueError("image: give --image FILE or FOLDER, or --requests FILE.jsonl")
    like = RequestFile(
        image=Path(config.image),
        instructions=make_instructions(split_instructions(config.instruction)),
        seed=config.seed,
        source_caption=config.source_caption,
        target_caption=config.target_caption,
        mask=Path(config.mask) if config.mask else None,
        box=parse_box(config.box) if config.box else None,
        click=parse_click(config.click) if config.click else None,
        id=Path(config.image).stem,
    )
    return folder_requests(config.image, like) if Path(config.image).is_dir() else [like]


def edit_many(editor, requests: list[RequestFile], config: InferConfig) -> int:
    """Edit in portions, skip what is finished, write down what failed, show all on a sheet."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from regionedit.batch import edit_in_parallel, edit_into, write_contact_sheet, write_failures

    out, portion = Path(config.out), 4 * config.batch
    workers = min(config.workers, len(requests))
    if workers > 1:
        coming = edit_in_parallel(editor.config, requests, out, portion, workers)
    else:
        coming = edit_into(editor, requests, out, portion)
    items = []
    with Progress(TextColumn("editing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=len(requests))
        for item in coming:
            items.append(item)
            bar.update(task, advance=1)
    write_failures(out, items)
    write_contact_sheet(out, [request.id for request in requests])
    shares = [item.share for item in items if item.share is not None]
    failed = [item for item in items if item.failure]
    before = len(items) - len(shares) - len(failed)
    average = f", {sum(shares) / len(shares):.1%} of a picture on average" if shares else ""
    print(f"{out}: {len(shares)} edited{average}; {before} finished before; {len(failed)} failed; {editor.computes}")
    if not failed:
        return 0
    first = f"first {failed[0].id}: {failed[0].failure}"
    return _say(f"{len(failed)} of {len(requests)} failed, see {out / 'failures.jsonl'}; {first}", 1)


def _summary(result: EditResult) -> str:
    seconds = ", ".join(f"{stage} {value:.2f} s" for stage, value in result.timings.items())
    return f"{result.share:.1%} of the picture edited ({seconds})" + (f"; {result.note}" if result.note else "")


def _say(message, code: int) -> int:
    print(f"infer.py: {'error: ' if code != 130 else ''}{' '.join(str(message).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
