"""A suite: every system on every benchmark, and one table for each benchmark and protocol.

OUT/BENCHMARK/SYSTEM/ is an evaluation as evaluate.py writes it, and OUT/BENCHMARK/comparison.* are its tables. Running
the suite again resumes every evaluation by the rules of evaluate.py.
"""

from __future__ import annotations

import gc
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from rich.console import Console

from regionedit.command_line import Config, errors_in_one_line, load_config
from regionedit.config import EditConfig, EvaluateConfig, SuiteConfig
from regionedit.evaluation import BENCHMARKS
from regionedit.evaluation.compare import WIDTH, compare
from regionedit.evaluation.finished_evaluations import IncomparableError, read_evaluations
from regionedit.evaluation.protocols import Protocol, shipped_file
from regionedit.evaluation.run import evaluate
from regionedit.evaluation.tables import print_table, terminal

FOLDER = Path("configs/suites")
OF_THE_MACHINE = {"device", "batch"}  # settings of the editor that the command line sets for all systems
# Settings of a benchmark's file that belong to the editor in it, not to the systems of the suite.
OF_ONE_EDITOR = {"pictures": None, "systems": {}, "expected": {}, "ceiling": None, "training_log": None}


def run_suite(config: EvaluateConfig, arguments: Sequence[str]) -> int:
    """Run the suite `config.suite`; an evaluation or a table that fails is reported, and the others go on.

    Args:
        config: its `suite`, `out`, `stage` and `debug` are read.
        arguments: the whole command line; it applies to every evaluation.

    Returns:
        0: everything was evaluated and compared. 1: something failed, or all cases of an evaluation did.

    Raises:
        ValueError: the suite or an argument is wrong, or data is missing; raised before the first edit.
    """
    suite = read_suite(config.suite)
    evaluations = configurations(suite, config.out, arguments)
    for name, configs in evaluations.items():
        _check(name, next(iter(configs.values())))
    console = terminal(WIDTH)
    problems = []
    for benchmark, configs in evaluations.items():
        done = []
        for system, its_config in configs.items():
            console.print(f"{benchmark}: {system}", style="bold", markup=False)
            summary = _evaluate(f"evaluate.py: {benchmark}, {system}", its_config)
            done += [] if summary is None else [system]
            if summary is None or summary["failed"] == summary["n"] > 0:
                problems.append(f"{benchmark}: {system}: {'failed' if summary is None else 'every case failed'}")
        if done and config.stage in ("both", "score"):
            problems += _compare(Path(config.out) / benchmark, configs, done, suite, console)
    for line in problems:
        print(f"evaluate.py: {line}", file=sys.stderr)
    return int(bool(problems))


def read_suite(name_or_path: str) -> SuiteConfig:
    """Read `configs/suites/NAME.yaml`, or a YAML file elsewhere. ValueError: it is missing or wrong; one line."""
    path = shipped_file("suite", name_or_path, FOLDER)
    try:
        return load_config(SuiteConfig, path)
    except ValueError as error:
        raise ValueError(f"suite: {path}: {str(error).removeprefix(f'{path}: ')}") from None


def configurations(
    suite: SuiteConfig, out: str | Path, arguments: Sequence[str] = ()
) -> dict[str, dict[str, EvaluateConfig]]:
    """Benchmark -> system -> the configuration of that evaluation; `arguments` apply to all of them.

    Raises:
        ValueError: a file or an argument is wrong, or finished pictures are missing; one line.
    """
    editing = {f.name for f in fields(EditConfig)} - OF_THE_MACHINE
    for argument in arguments:
        name = argument.removeprefix("--").partition("=")[0]
        if argument.startswith("--") and name == "config":
            raise ValueError("suite: leave --config out; the suite's file names the configurations")
        if argument.startswith("--") and name.split(".")[0] in {*editing, *OF_ONE_EDITOR}:
            raise ValueError(f"suite: --{name} belongs to a system: write it behind one in the suite's file")
    shared = {
        name: _load(f"benchmarks.{name}", EvaluateConfig, value, arguments) for name, value in suite.benchmarks.items()
    }
    configs: dict[str, dict[str, EvaluateConfig]] = {name: {} for name in shared}
    for system, value in suite.systems.items():
        pictures = Path(value) if Path(value).is_dir() else None
        editor = None if pictures else _load(f"systems.{system}", EditConfig, value)
        for name, config in shared.items():
            own = OF_ONE_EDITOR | {"suite": None, "out": str(Path(out) / name / system)}
            if editor:
                own |= {key: getattr(editor, key) for key in editing}
            elif not (pictures / name).is_dir():
                raise ValueError(f"suite: systems.{system}: {pictures} has no folder {name!r} with its pictures")
            else:
                own["pictures"] = str(pictures / name)
            configs[name][system] = replace(config, **own)
    return configs


def _load(key: str, config_class: type[Config], value: str, arguments: Sequence[str] = ()) -> Config:
    """The configuration that a line of the suite's file names."""
    try:
        path, *changes = shlex.split(value) or [""]
        return load_config(config_class, path, [*changes, *arguments])
    except ValueError as error:
        raise ValueError(f"suite: {key}: {error}") from None


def _check(name: str, config: EvaluateConfig) -> None:
    """Raise for an unknown benchmark, missing data or a wrong protocol, before anything is edited."""
    try:
        if config.benchmark not in BENCHMARKS:
            raise ValueError(f"benchmark: no benchmark {config.benchmark!r}; there are: {', '.join(BENCHMARKS)}")
        if config.protocol:
            Protocol.read(config.protocol).apply(config)
        BENCHMARKS[config.benchmark](config.data, config.limit, config.ids)
    except ValueError as error:
        raise ValueError(f"suite: benchmarks.{name}: {error}") from None


def _evaluate(command: str, config: EvaluateConfig) -> dict | None:
    """What `evaluate` returns, or None after an error, which is printed in one line; Ctrl-C ends the suite."""
    try:
        with errors_in_one_line(command, config.out, config.debug):
            return evaluate(config, marks="read")
    except SystemExit as stop:
        if stop.code == 130:
            raise
        return None
    finally:
        gc.collect()  # the models of this system, before those of the next


def _compare(
    folder: Path, configs: dict[str, EvaluateConfig], done: Sequence[str], suite: SuiteConfig, console: Console
) -> list[str]:
    """Write and print the tables of a benchmark; why that was not possible, and which systems the table lacks."""
    protocol = next(iter(configs.values())).protocol
    against = suite.against if suite.against in done and len(done) > 1 else None
    try:
        with_rows = read_evaluations([folder / system for system in done])
        found = compare(with_rows, protocol and Protocol.read(protocol), published=True, against=against)
    except IncomparableError as error:
        return [f"{folder.name}: not comparable: {line}" for line in error.lines]
    except ValueError as error:
        return [f"{folder.name}: {error}"]
    if missing := [system for system in configs if system not in done]:
        table = found.tables[0]
        found.tables[0] = replace(table, note=f"{table.note}\nno result, see log.txt: {', '.join(missing)}")
    files = found.write(folder)
    for table in found.tables:
        print_table(table, console)
    console.print(f"written: {', '.join(map(str, files))}", markup=False)
    return []
