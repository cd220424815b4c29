"""log.txt beside a command's output: what was run and when, the package's messages, and tracebacks of what failed."""

from __future__ import annotations

import logging
import shlex
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

NAME = "log.txt"
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_to(folder: str | Path) -> None:
    """From now on also write this package's messages to `folder`/log.txt, which grows from run to run.

    The command line goes only there: the user knows it, and every rank would print it.
    """
    path = Path(folder) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter(FORMAT))
    package = logging.getLogger("regionedit")
    package.setLevel(logging.INFO)
    package.addHandler(handler)
    handler.emit(package.makeRecord(package.name, logging.INFO, __file__, 0, shlex.join(sys.argv), (), None))


def write_traceback(folder: str | Path, error: BaseException, what: str) -> Path:
    """Append the traceback of an error to `folder`/log.txt, and return that file's path for the message to the user.

    `what` says what failed, for example the id of a request. The folder is created if it does not exist.
    """
    path = Path(folder) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} failed: {what}\n")
        file.write("".join(traceback.format_exception(error)) + "\n")
    return path


def kept_traceback(folder: str | Path, error: BaseException, what: str) -> str:
    """Write the traceback, and return the end of the message to the user that says where it is.

    On a full or read-only disk it says that the log could not be written; the error itself must still be shown.
    """
    existed = Path(folder).is_dir()
    try:
        return f"; traceback in {write_traceback(folder, error, what)}"
    except OSError as failure:
        if not existed:
            with suppress(OSError):
                Path(folder).rmdir()
        return f"; its traceback could not be written to {Path(folder) / NAME}: {failure.strerror or failure}"
