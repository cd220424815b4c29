"""Read YAML files and command lines into the dataclasses of `config` with jsonargparse, and save them. No torch."""

from __future__ import annotations

import difflib
import gc
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from regionedit.files import write_atomic

Config = TypeVar("Config")


def load_config(config_class: type[Config], path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML that lists what differs from the defaults, then apply overrides.

    Args:
        config_class: a configuration dataclass of `config`, or a subclass of one.
        path: the YAML; None starts from the defaults.
        overrides: as on a command line, `["--loss.area", "0.3"]`; they win over the file.

    Raises:
        ValueError: missing file, unknown key (with the nearest valid one), wrong type; one line that names the key.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(prog=_command(), exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file that lists what differs from the defaults.")
    parser.add_class_arguments(config_class)
    arguments = [str(argument) for argument in (["--config", path] if path is not None else []) + list(overrides)]
    _refuse_unknown_keys(config_class, arguments)
    try:
        parsed = parser.parse_args(arguments)
    except ArgumentError as error:
        message = re.sub(r'Parser key "([^"]+)":', r"\1:", " ".join(str(error).split()))
        raise ValueError(
            message.replace("<class '", "").replace("'>", "").replace("typing.Literal", "one of ")
        ) from None
    return _build(config_class, parsed.as_dict())


def parse_command(config_class: type[Config], argv: Sequence[str] | None = None) -> Config:
    """The command line of train.py, infer.py, evaluate.py and app.py, as `config_class`.

    Accepts `--config FILE`, dotted overrides such as `--loss.area 0.3`, `--print_config` and `--help`. A command with
    additional arguments subclasses its configuration. A wrong argument exits with code 2 and one line that names it.
    """
    gc.set_threshold(100_000, 20, 100)  # imports create a million long-lived objects; do not scan them again
    try:
        return load_config(config_class, overrides=sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        print(f"{_command()}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


@contextmanager
def errors_in_one_line(command: str) -> Iterator[None]:
    """End a command with one line instead of a stack trace: exit code 2 for a ValueError (a wrong argument or input
    that the user can correct), 1 for an OSError (the machine refused something)."""
    try:
        yield
    except ValueError as error:
        print(f"{command}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"{command}: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def save_config(config: Any, path: str | Path) -> None:
    """Write the resolved configuration as YAML, atomically; `load_config` reads it back to an equal object."""
    import yaml

    write_atomic(path, yaml.safe_dump(asdict(config), sort_keys=False).encode())


def _command() -> str:
    return Path(sys.argv[0]).name or "regionedit"


def _build(config_class: type[Config], values: dict[str, Any]) -> Config:
    types = get_type_hints(config_class)
    known = {name: value for name, value in values.items() if name in types}
    return config_class(**{k: _build(types[k], v) if is_dataclass(types[k]) else v for k, v in known.items()})


def _names(config_class: type, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration, dotted."""
    for name, kind in get_type_hints(config_class).items():
        yield prefix + name
        if is_dataclass(kind):
            yield from _names(kind, f"{prefix}{name}.")


def _keys(values: dict[str, Any], config_class: type, prefix: str = "") -> Iterator[str]:
    """Every key that a YAML sets, dotted; the keys inside free-form dictionaries such as `trainer` are left out."""
    types = get_type_hints(config_class)
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict) and is_dataclass(types.get(name)):
            yield from _keys(value, types[name], f"{prefix}{name}.")


def _refuse_unknown_keys(config_class: type, arguments: list[str]) -> None:
    """Raise for a mistyped key in a file or on the command line; the message gives the full key and the nearest valid
    one."""
    import yaml

    valid = [*_names(config_class)]
    free = tuple(f"{name}." for name, kind in get_type_hints(config_class).items() if get_origin(kind) is dict)
    options = [argument.split("=")[0] for argument in arguments if argument.startswith("--")]
    given = [(o[2:].rstrip("+"), "command line") for o in options if o not in ("--config", "--print_config", "--help")]
    for index, argument in enumerate(arguments):
        name, _, file = argument.partition("=")
        file = file or "".join(arguments[index + 1 : index + 2])
        if name == "--config" and Path(file).is_file():
            try:
                values = yaml.safe_load(Path(file).read_text()) or {}
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise ValueError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
            if not isinstance(values, dict):
                raise ValueError(f"{file}: not a configuration: expected `key: value` lines")
            given += [(str(key), file) for key in _keys(values, config_class)]
    for key, where in given:
        if key not in valid and not key.startswith(free):
            near = difflib.get_close_matches(key, valid, n=1)
            raise ValueError(f"{where}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
