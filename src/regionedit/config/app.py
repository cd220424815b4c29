"""Settings of the page in a browser."""

from __future__ import annotations

from dataclasses import dataclass, field

from regionedit.config.editing import EditConfig


@dataclass
class AppConfig(EditConfig):
    """`python app.py`: edit, compare and correct regions in a browser.

    Args:
        host: address to listen on: 127.0.0.1 serves this machine alone, 0.0.0.0 everyone who can reach it.
        port: port to listen on; 0 takes the first free one from 7860.
        share: create a public address through Gradio's servers, for as long as the command runs.
        password_variable: environment variable with a password that every visitor must enter, with any user name; None:
            no password.
        examples: a JSONL of requests (as for infer.py) that the page offers as examples, or None.
        systems: name -> an infer.py configuration that can be compared with the page's own; arguments may follow the
            file's name.
        judge: the CLIP of the metrics that scores comparisons, as for evaluate.py; None: no CLIP scores them.
        max_megabytes: maximum size of one uploaded file.
        max_steps: maximum number of denoising steps of one request.
        max_variants: maximum number of variants of one request.
        max_pictures: maximum number of pictures in a batch.
        queue: how many requests may wait; further ones are rejected.
        debug: print the stack trace of an error; otherwise one line is printed, and the stack trace of an unexpected
            error is in outputs/app/log.txt.
    """

    host: str = "127.0.0.1"
    port: int = 0
    share: bool = False
    password_variable: str | None = None
    examples: str | None = None
    systems: dict[str, str] = field(default_factory=dict)
    judge: str | None = None
    max_megabytes: int = 20
    max_steps: int = 100
    max_variants: int = 4
    max_pictures: int = 500
    queue: int = 64
    debug: bool = False
