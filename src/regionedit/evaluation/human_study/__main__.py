"""python -m regionedit.evaluation.human_study make|analyse."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from regionedit.command_line import run_command
from regionedit.evaluation.human_study.analyse import analyse
from regionedit.evaluation.human_study.make import StudySettings, make
from regionedit.evaluation.human_study.sheets import DESIGNS
from regionedit.evaluation.human_study.tables import print_analysis, print_study

OPTIONS = {  # of `make`, with the defaults of StudySettings
    "benchmark": "source of pictures and instructions",
    "data": "the benchmark's folder",
    "ids": "file with the case ids to choose from, a JSON list or one id a line",
    "cases": "number of cases; 0: all that every system has a picture for",
    "raters": "number of forms",
    "trials": "trials of each rater; 0: every case with every pair",
    "repeats": "trials of each rater to show twice, the second time with the pictures in reverse order",
    "seed": "decides cases, assignment, order and sides",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 2 a wrong argument or input, 1 any other error.

    An error is printed in one line.
    """
    arguments = vars(_parser().parse_args(argv))
    command, work = arguments.pop("command"), arguments.pop("work")
    return run_command(f"human_study {command}", lambda: work(**arguments), None, debug=False)


def _make(systems: list[str], **settings) -> None:
    folders = {}
    for text in systems:
        name, _, folder = text.partition("=")
        if not (name and folder):
            raise ValueError(f"systems: {text!r} is not NAME=DIR")
        if name in folders:
            raise ValueError("systems: two have the same name; give each its own")
        folders[name] = folder
    print_study(make(StudySettings(folders, **settings)), settings["out"])


def _analyse(key: Path, answers: list[Path], out: Path) -> None:
    print_analysis(analyse(key, answers, out), out)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="human_study", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="make|analyse")

    new = commands.add_parser("make", help="write forms, key and answer sheet")
    folders = "the `out` folder of an evaluation, or a folder of pictures named by case id"
    new.add_argument("--systems", nargs="+", required=True, metavar="NAME=DIR", help=folders)
    for name, text in OPTIONS.items():
        default = getattr(StudySettings, name)
        new.add_argument(f"--{name}", type=int if isinstance(default, int) else str, default=default, help=text)
    designs = "both questions on a scale for every picture, or the better picture for each question"
    new.add_argument("--design", choices=DESIGNS, default=StudySettings.design, help=designs)
    shown = new.add_mutually_exclusive_group()
    for name, text in {"pairs": "two systems at a time (default)", "all": "all systems at a time"}.items():
        shown.add_argument(f"--{name}", dest="shown", action="store_const", const=name, default="pairs", help=text)
    new.add_argument("--out", required=True, help="receives the forms, template.csv, study.json and key.csv")
    new.set_defaults(work=_make)

    read = commands.add_parser("analyse", help="compute scores, agreement and biases")
    read.add_argument("--key", type=Path, required=True, help="key.csv of the study")
    read.add_argument("--answers", type=Path, nargs="+", required=True, help="the CSV files of the raters")
    read.add_argument("--out", type=Path, required=True, help="receives analysis.json and analysis.md")
    read.set_defaults(work=_analyse)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
