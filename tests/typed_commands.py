"""Commands as a user types them, in processes of their own that need not import torch and the other libraries again:
one fresh Python imports them, and forks for every command."""

import multiprocessing
import os
import runpy
import sys
from pathlib import Path

PRELOADED = [
    "torch", "torchvision", "lightning.pytorch", "open_clip", "transformers.models.t5.modeling_t5", "pandas",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint", "regionedit.training",
    "regionedit.evaluation.run", "regionedit.generators.stable_diffusion",
]  # fmt: skip


class Terminal:
    """Runs commands in a folder.

    Args:
        environment: variables that are set from the start.
    """

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder, self._count = folder, 0
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        before = dict(os.environ)
        os.environ |= environment
        try:
            multiprocessing.forkserver.ensure_running()
        finally:
            os.environ.clear()
            os.environ |= before

    def run(self, *commands: list[str], processes: int = 1, timeout: float = 200) -> list[str]:
        """Run commands, `python PROGRAM ...` each, at the same time; all must succeed. Returns what they printed.

        Args:
            processes: started by torchrun for each command; 1: none of its own.
        """
        started = []
        for words in commands:
            assert words[0] == "python", words
            self._count += 1
            log = self.folder / f"command_{self._count}.txt"
            process = self._context.Process(target=_run, args=(words[1:], processes, self.folder, log))
            process.start()
            started.append((words, process, log))
        for words, process, log in started:
            process.join(timeout)
            process.kill()
            assert process.exitcode == 0, f"{' '.join(words)}: {process.exitcode}: {log.read_text()[-3000:]}"
        return [log.read_text() for _, _, log in started]


def _run(words: list[str], processes: int, folder: Path, log: Path) -> None:
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    if processes == 1:
        return _program(words)
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(1, 1, processes, run_id="test", rdzv_backend="c10d", max_restarts=0, start_method="fork")
    elastic_launch(config, _program)(words)


def _program(words: list[str]) -> None:
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).resolve().parent))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
