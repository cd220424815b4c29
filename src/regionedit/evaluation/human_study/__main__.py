"""python -m regionedit.evaluation.human_study make|analyse."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from regionedit.config import EvaluateConfig
from regionedit.evaluation.human_study.make import StudySettings, make
from regionedit.evaluation.human_study.questions import DESIGNS
from regionedit.evaluation.human_study.tables import print_analysis, print_study


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """0: done. 2: an argument or a file is wrong; one line names it."""
    arguments = vars(_parser().parse_args(argv))
    command = arguments.pop("command")
    try:
        if command == "make":
            given = arguments.pop("systems")
            systems = dict(_system(text) for text in given)
            if len(systems) < len(given):
                raise ValueError("systems: two have the same name; give each its own")
            settings = StudySettings(systems=systems, **arguments)
            print_study(make(settings), settings.out)
        else:
            from regionedit.evaluation.human_study.analyse import analyse  # pandas is slow to import

            print_analysis(analyse(arguments["key"], arguments["answers"], arguments["out"]), arguments["out"])
    except (ValueError, OSError) as error:
        print(f"human_study {command}: error: {error}", file=sys.stderr)
        return 2
    return 0


def _system(text: str) -> tuple[str, str]:
    name, _, folder = text.partition("=")
    if not (name and folder):
        raise ValueError(f"systems: {text!r} is not NAME=DIR")
    return name, folder


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="human_study", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="make|analyse")

    new = commands.add_parser("make", help="write forms, key and answer sheet")
    new.add_argument("--systems", nargs="+", required=True, metavar="NAME=DIR", help="out of evaluate.py, or pictures")
    new.add_argument("--benchmark", default=EvaluateConfig.benchmark, help="source of pictures and instructions")
    new.add_argument("--data", default=EvaluateConfig.data, help="the benchmark's folder")
    new.add_argument("--ids", help="file with the case ids to choose from, a JSON list or one id a line")
    new.add_argument("--cases", type=int, default=StudySettings.cases, help="number of cases; 0: all eligible ones")
    new.add_argument("--raters", type=int, default=StudySettings.raters, help="number of forms")
    new.add_argument("--design", choices=DESIGNS, default=StudySettings.design)
    shown = new.add_mutually_exclusive_group()
    shown.add_argument(
        "--pairs", dest="shown", action="store_const", const="pairs", help="two systems at a time (default)"
    )
    shown.add_argument("--all", dest="shown", action="store_const", const="all", help="all systems at a time")
    new.set_defaults(shown=StudySettings.shown)
    new.add_argument("--trials", type=int, default=StudySettings.trials, help="number for each rater; 0: all")
    new.add_argument("--repeats", type=int, default=StudySettings.repeats, help="trials of each rater to show twice")
    new.add_argument("--seed", type=int, default=StudySettings.seed, help="decides cases, order and sides")
    new.add_argument("--out", required=True, help="folder for the forms and the key")

    read = commands.add_parser("analyse", help="compute scores, agreement and biases")
    read.add_argument("--key", type=Path, required=True, help="key.csv of the study")
    read.add_argument("--answers", type=Path, nargs="+", required=True, help="the CSV files of the raters")
    read.add_argument("--out", type=Path, required=True, help="receives analysis.json and analysis.md")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
