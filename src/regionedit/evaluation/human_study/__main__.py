"""python -m regionedit.evaluation.human_study make|analyse; `make --help` and `analyse --help` list the options."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from regionedit.command_line import load_config, run_command
from regionedit.evaluation.human_study.analyse import AnalysisSettings, analyse
from regionedit.evaluation.human_study.make import StudySettings, make

COMMANDS = {"make": (StudySettings, make), "analyse": (AnalysisSettings, analyse)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 2 a wrong argument or input in one line, 1 any other error."""
    command, *arguments = (sys.argv[1:] if argv is None else argv) or [""]
    if command in ("-h", "--help"):
        print(__doc__)
        return 0

    def work() -> None:
        if command not in COMMANDS:
            raise ValueError("give `make` or `analyse`; either lists its options with --help")
        settings, run = COMMANDS[command]
        run(load_config(settings, overrides=_overrides(arguments)))

    return run_command(f"human_study {command}".strip(), work, None, debug=False)


def _overrides(arguments: Sequence[str]) -> list[str]:
    """The arguments with one value for each option, as the parser expects: `--systems` and `--answers` as JSON."""
    values, option = {}, ""
    for argument in arguments:
        option, *value = argument.split("=", 1) if argument.startswith("--") else (option, argument)
        values.setdefault({"--pairs": "--shown=pairs", "--all": "--shown=all"}.get(option, option), []).extend(value)
    folders = [text.partition("=")[::2] for text in values.get("--systems", ())]
    if len(dict(folders)) < len(folders):
        raise ValueError("systems: two have the same name; give each its own")
    as_json = {"--systems": dict(folders), "--answers": values.get("--answers")}
    values |= {option: [json.dumps(given)] for option, given in as_json.items() if option in values}
    return [part for option, given in values.items() for part in (option, *given)]


if __name__ == "__main__":
    raise SystemExit(main())
