"""Serve the page for a browser; a Hugging Face Space starts the file of this name.

    python app.py                                          # the microworld's models, for this machine only
    python app.py --config configs/edit_sd15.yaml --host 0.0.0.0 --password_variable REGIONEDIT_PASSWORD

A wrong argument exits with 2 and one line that names it.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

if importlib.util.find_spec("regionedit") is None:  # a Space installs requirements.txt, and not the package itself
    sys.path.insert(0, str(Path(__file__).parent / "src"))

from regionedit.command_line import parse_command, run_command
from regionedit.config import AppConfig

DEFAULT = "configs/app_microworld.yaml"
LOG_FOLDER = "outputs/app"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not any(argument.split("=")[0] == "--config" for argument in arguments):
        arguments = ["--config", DEFAULT, *arguments]
    config = parse_command(AppConfig, arguments)
    try:
        from regionedit.web.page import serve
    except ImportError as error:
        print(f"app.py: error: {error.name} is not installed; run: pip install 'regionedit[app]'", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uploads are deleted however it is stopped

    def until_stopped() -> None:
        with suppress(KeyboardInterrupt):
            serve(config)

    return run_command("app.py", until_stopped, LOG_FOLDER, config.debug)


if __name__ == "__main__":
    raise SystemExit(main())
