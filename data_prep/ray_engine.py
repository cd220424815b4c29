"""Run the workers as a Ray Data job, on this machine or on a cluster that shares the folder (extra `scale`).

A row is a shard, and an actor is a worker with its own writer. The folder's claims still decide which worker writes
which shard, so that Ray jobs, SLURM arrays and plain commands can run side by side.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from instruction_shard import Job, ShardResult, ShardWriter
from write_config import WriteConfig
from writer import WriterError

_BLOCKS = 100  # blocks of rows for each worker: few enough for Ray, enough to balance the load


class ShardActor:
    """Processes one row; the result is returned as JSON, since Ray Data needs columns of one type."""

    def __init__(self, config: WriteConfig):
        self._worker = ShardWriter(config)

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        over = int(row["over"])
        return {"result": json.dumps(asdict(self._worker(str(row["shard"]), over if over >= 0 else None)))}


class RayEngine:
    """Starts Ray, or connects to a cluster.

    Raises:
        ValueError: Ray is not installed.
    """

    def __init__(self, config: WriteConfig):
        try:
            import ray
            import ray.data
        except ImportError:
            raise ValueError(
                'engine: ray is not installed; pip install "regionedit[scale]", or choose engine local'
            ) from None
        self._config = config
        self._started = not ray.is_initialized()
        if self._started:
            ray.init(address=config.ray_address, log_to_driver=False)

    def __call__(self, jobs: Iterable[Job]) -> Iterator[ShardResult]:
        import ray
        import ray.data

        rows = [{"shard": shard, "over": -1 if over is None else over} for shard, over in jobs]
        blocks = min(len(rows), _BLOCKS * self._config.workers)
        made = ray.data.from_items(rows, override_num_blocks=blocks).map(
            ShardActor,
            fn_constructor_args=(self._config,),
            compute=ray.data.ActorPoolStrategy(size=self._config.workers),
            num_cpus=1,
            num_gpus=self._config.gpus or None,
        )
        try:
            for row in made.iter_rows():
                yield ShardResult(**json.loads(row["result"]))
        except ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise WriterError(f"ray: {lines[-1].strip() if lines else type(error).__name__}") from None

    def close(self) -> None:
        import ray

        if self._started:
            ray.shutdown()
