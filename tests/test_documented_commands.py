"""Every command on a page of the documentation exists, and its `--help` knows the options that the page gives it."""

import re
import runpy
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.documented_commands import PAGES, bash, commands, lines

INSTALLED = {"hf", "torchrun", "uvx"}  # console commands of the locked environment
ELSEWHERE = {
    "make", "source", "kill", "sleep", "curl", "until", "do", "done", "export", "pip",
    "img2dataset",  # in an environment of its own, which uvx makes
    "vllm",  # in an environment of its own
    "sbatch", "srun",  # of a SLURM cluster
    "aws",  # of the user's object storage
}  # fmt: skip


def documented() -> tuple[set[str], dict[tuple[str, ...], set[str]]]:
    """Names of the console commands; for each call of a program of ours, as far as `--help` needs it, its options."""
    console, programs = set(), defaultdict(set)
    for page in PAGES:
        for words in (words for line in lines(page) for words in commands(line)):
            at = next((i for i, word in enumerate(words) if word.endswith(".py") or word == "-m"), None)
            foreign = at is not None and words[at + 1 :][:1] == ["uv"]
            if Path(words[0]).name in ("python", "torchrun", "uvx") and at is not None and not foreign:
                program = tuple(words[at : at + 2] if words[at] == "-m" else words[at : at + 1])
                given = words[at + len(program) :]
                if re.fullmatch("[a-z_]+", "".join(given[:1])):  # a subcommand
                    program += (given[0],)
                for i, word in enumerate(given):
                    if word in ("--config", "--generator.name") and re.fullmatch(r"[a-z_/\d]+(\.yaml)?", given[i + 1]):
                        program += tuple(given[i : i + 2])
                programs[program] |= {word for word in given if re.fullmatch(r"--[a-z][\w.]*", word)}
            console.add(Path(words[0]).name)
    return console, programs


CONSOLE, CALLS = documented()


def test_console_commands_exist():
    assert {"hf", "torchrun", "make", "vllm"} <= CONSOLE, "commands were not found in the pages"
    assert {("train.py",), ("data_prep/subset.py",), ("-m", "benchmarks.train_step")} <= CALLS.keys()
    for name in CONSOLE & INSTALLED:
        assert (Path(sys.executable).parent / name).is_file(), f"{name} is not in the locked environment"
    in_bash = {Path(words[0]).name for page in PAGES for line in bash(page) for words in commands(line)}
    unknown = in_bash - INSTALLED - ELSEWHERE - {"python"}
    assert not unknown, "add it to the lock, or say in ELSEWHERE where it comes from"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # runpy, on a module that is imported already
@pytest.mark.parametrize("call", sorted(CALLS), ids=" ".join)
def test_help_knows_the_options(call, monkeypatch, capsys):
    module = call[0] == "-m"
    name, arguments = (call[1], call[2:]) if module else (call[0], call[1:])
    monkeypatch.setattr(sys, "argv", [name, *arguments, "--help"])
    with pytest.raises(SystemExit) as stopped:
        if module:
            runpy.run_module(name, run_name="__main__")
        else:
            runpy.run_path(name, run_name="__main__")
    shown = capsys.readouterr()
    assert not stopped.value.code, shown.err
    for option in CALLS[call]:
        free = option.startswith("--trainer.")  # passed to Lightning as it is
        assert free or re.search(rf"(?<![\w.-]){re.escape(option)}(?![\w.-])", shown.out), option
