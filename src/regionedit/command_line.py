"""Read YAML files and command lines into the dataclasses of `config` with jsonargparse, and save them. No torch."""

from __future__ import annotations

import difflib
import gc
import io
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from regionedit.config.renamed import RENAMED
from regionedit.error_log import kept_traceback
from regionedit.files import is_folder, write_atomic

Config = TypeVar("Config")

log = logging.getLogger(__name__)

LONGEST = 800  # characters of a printed message; a longer one loses its middle


def load_config(config_class: type[Config], path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML that lists what differs from the defaults, then apply overrides.

    If a field has the metadata `choices` (name -> dataclass), the given `name` selects its dataclass.

    Args:
        config_class: a configuration dataclass of `config`, or a subclass of one.
        path: the YAML; None starts from the defaults.
        overrides: as on a command line, `["--loss.area", "0.3"]`; they win over the file.

    Raises:
        ValueError: missing file, unknown key (with the nearest valid one), wrong type, a value that the dataclass
            rejects; one line that names the key.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    arguments = [str(argument) for argument in (["--config", path] if path is not None else []) + list(overrides)]
    given = _given(config_class, arguments)
    chosen_class = _chosen(config_class, given)
    arguments, given = _without_replaced(config_class, chosen_class, arguments, given)
    _refuse_unknown_keys(config_class, chosen_class, given)
    parser = ArgumentParser(prog=_command(), exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file: what differs from the defaults.")
    parser.add_class_arguments(chosen_class)
    try:
        parsed = parser.parse_args(arguments)
    except ArgumentError as error:
        message = re.sub(r'Parser key "([^"]+)":', r"\1:", one_line(error))
        raise ValueError(
            message.replace("<class '", "").replace("'>", "").replace("typing.Literal", "one of ")
        ) from None
    return _build(config_class, parsed.as_dict(), get_type_hints(chosen_class))


def parse_command(config_class: type[Config], argv: Sequence[str] | None = None) -> Config:
    """The command line of train.py, infer.py, evaluate.py and app.py, as `config_class`.

    Accepts `--config FILE`, dotted overrides such as `--loss.area 0.3`, `--print_config` and `--help`. A command with
    additional arguments subclasses its configuration. A wrong argument exits with code 2 and one line that names it.
    """
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    gc.set_threshold(100_000, 20, 100)  # imports create a million long-lived objects; do not scan them again
    try:
        return load_config(config_class, overrides=sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        print(f"{_command()}: error: {short_line(error)}", file=sys.stderr)
        raise SystemExit(2) from None


def one_line(error: object, longest: int | None = None) -> str:
    """The message of an error in one line, at most `longest` characters.

    Every run of white space becomes one space; control characters, which a terminal would obey, become their codes.
    """
    text = " ".join(str(error).split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)[:longest]


def short_line(error: object) -> str:
    """`one_line` without the middle of a very long message: the field stands at the start, the fix at the end."""
    line = one_line(error)
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


@contextmanager
def errors_in_one_line(command: str, out: str | Path | None = None, debug: bool = False) -> Iterator[None]:
    """End a command with one line instead of a stack trace.

    Exit code 2 for a ValueError (a wrong argument or input that the user can correct), 130 for Ctrl-C, 1 for any other
    error. With code 1 the traceback is appended to `out`/log.txt, and the line names that file; with code 2 it is
    appended if the folder exists already.

    Args:
        command: its name, which begins the line.
        out: the command's output folder; None: no traceback is kept.
        debug: let every error pass, with its stack trace.
    """
    try:
        yield
    except Exception as error:
        if debug:
            raise
        code = 2 if isinstance(error, ValueError) else 1
        reason = error.strerror if isinstance(error, OSError) and error.strerror and not error.filename else error
        expected = isinstance(error, ValueError | OSError)
        line = short_line(reason) if expected else f"{type(error).__name__}: {short_line(error)}"
        kept = kept_traceback(out, error, command) if out is not None and (code == 1 or is_folder(out)) else ""
        line += kept if code == 1 else ""
        print(f"{command}: error: {line}", file=sys.stderr)
        raise SystemExit(code) from None
    except KeyboardInterrupt:
        print(f"{command}: stopped; run the same command to continue", file=sys.stderr)
        raise SystemExit(130) from None


def run_command(command: str, work: Callable[[], int | None], out: str | Path | None, debug: bool) -> int:
    """The exit code of `work` (None counts as 0), called inside `errors_in_one_line` with the other arguments."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with errors_in_one_line(command, out, debug):
            return work() or 0
    except SystemExit as stop:
        return int(stop.code)


def save_config(config: Any, path: str | Path) -> None:
    """Write the resolved configuration as YAML, atomically; `load_config` reads it back to an equal object."""
    import yaml

    write_atomic(path, yaml.safe_dump(asdict(config), sort_keys=False).encode())


def _command() -> str:
    return Path(sys.argv[0]).name or "regionedit"


def _build(config_class: type[Config], values: dict[str, Any], types: dict[str, Any] | None = None) -> Config:
    types = types or get_type_hints(config_class)
    known = {name: value for name, value in values.items() if name in types}
    return config_class(**{k: _build(types[k], v) if is_dataclass(types[k]) else v for k, v in known.items()})


def _names(config_class: type, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration, dotted; free-form settings (`trainer`) end with a dot as well."""
    for name, kind in get_type_hints(config_class).items():
        yield prefix + name
        if is_dataclass(kind):
            yield from _names(kind, f"{prefix}{name}.")
        elif get_origin(kind) is dict:
            yield f"{prefix}{name}."


def _keys(values: dict[str, Any], config_class: type, file: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that a YAML sets, dotted, with its value; without keys inside free-form settings (`trainer`). Raises
    ValueError: a value in place of a section; a name (`true`, `5`) that YAML reads as no text."""
    types = get_type_hints(config_class)
    for name, value in values.items():
        yield f"{prefix}{name}", value
        if is_dataclass(types.get(name)):
            if not isinstance(value, dict):
                raise ValueError(f"{file}: {prefix}{name}: {value!r}, but must be a section of `setting: value` lines")
            yield from _keys(value, types[name], file, f"{prefix}{name}.")
        elif isinstance(value, dict) and (unquoted := [key for key in value if not isinstance(key, str)]):
            raise ValueError(f"{file}: {prefix}{name}: put the name {str(unquoted[0]).lower()!r} in quotes, as text")


def _given(config_class: type, arguments: list[str]) -> list[tuple[str, Any, str]]:
    """Key, value and origin (a file's path, or "command line") of every setting that the arguments give, in order."""
    import yaml

    given: list[tuple[str, Any, str]] = []
    for index, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        value = value or "".join(arguments[index + 1 : index + 2])
        if name == "--config" and Path(value).is_file():
            try:
                values = yaml.safe_load(Path(value).read_text()) or {}
            except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
                raise ValueError(f"{value}: not valid YAML: {one_line(error)}") from None
            if not isinstance(values, dict):
                raise ValueError(f"{value}: not a configuration: expected `key: value` lines")
            given += [(str(key), set_to, value) for key, set_to in _keys(values, config_class, value)]
        elif name.startswith("--") and name not in ("--config", "--print_config", "--help"):
            given.append((name[2:].rstrip("+"), value, "command line"))
    return given


def _chosen(config_class: type, given: list[tuple[str, Any, str]]) -> type:
    """`config_class`, in which each field with `choices` has the dataclass that the given `name` selects."""
    changed = []
    for own in fields(config_class):
        if choices := own.metadata.get("choices"):
            default = own.default_factory()
            name = next((value for key, value, _ in reversed(given) if key == f"{own.name}.name"), default.name)
            if name not in choices:
                raise ValueError(f"{own.name}.name: {name!r} is none of {', '.join(sorted(choices))}")
            factory = own.default_factory if choices[name] is type(default) else choices[name]
            changed.append((own.name, choices[name], field(default_factory=factory)))
    if not changed:
        return config_class
    chosen = make_dataclass(config_class.__name__, changed, bases=(config_class,))
    chosen.__doc__, chosen.__module__ = config_class.__doc__, config_class.__module__
    return chosen


def _without_replaced(
    config_class: type, chosen_class: type, arguments: list[str], given: list[tuple[str, Any, str]]
) -> tuple[list[str], list[tuple[str, Any, str]]]:
    """Arguments and settings without those of a file that the choice on the command line lacks; each causes a warning.

    For example, a file sets `generator.strength` and the command line names a generator without this setting.
    """
    import yaml

    on_command_line = {key for key, _, where in given if where == "command line"}
    replaced = [f for f in fields(config_class) if f.metadata and f"{f.name}.name" in on_command_line]
    for file in {where for _, _, where in given if where != "command line"} if replaced else ():
        values = yaml.safe_load(Path(file).read_text())
        for own in replaced:
            section = values.get(own.name) or {}
            theirs = {f.name for kind in own.metadata["choices"].values() for f in fields(kind)}
            theirs -= {f.name for f in fields(get_type_hints(chosen_class)[own.name])}
            for setting in theirs & section.keys():
                log.warning("%s: %s.%s does not apply to the %s of the command line", file, own.name, setting, own.name)
                del section[setting]
                given = [entry for entry in given if entry[::2] != (f"{own.name}.{setting}", file)]
            section.pop("name", None)
        text = yaml.safe_dump(values)
        arguments = [
            text if argument == file else f"--config={text}" if argument == f"--config={file}" else argument
            for argument in arguments
        ]
    return arguments, given


def _refuse_unknown_keys(config_class: type, chosen_class: type, given: list[tuple[str, Any, str]]) -> None:
    """Raise for a key that does not exist; the message gives advice."""
    names = [*_names(chosen_class)]
    valid, free = [name for name in names if name[-1] != "."], tuple(name for name in names if name[-1] == ".")
    for key, _, where in given:
        if key not in valid and not key.startswith(free):
            raise ValueError(f"{where}: unknown key {key!r}{_advice(key, valid, config_class)}")


def _advice(key: str, valid: list[str], config_class: type) -> str:
    """The key's new name, the generator or describer that has it, or the nearest valid key."""
    if key in RENAMED:
        return f"; it is called {RENAMED[key]!r} now"
    owner, _, setting = key.partition(".")
    choices = next((f.metadata["choices"] for f in fields(config_class) if f.name == owner and f.metadata), {})
    if able := [name for name, kind in choices.items() if setting in get_type_hints(kind)]:
        return f"; only {owner} {' and '.join(able)} has this setting"
    near = difflib.get_close_matches(key, valid, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
