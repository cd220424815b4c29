"""The registry of writers; each module is imported when its writer is used.

To add a writer, write a module with a subclass of `Writer` and add a line to `WRITERS`.
"""

from __future__ import annotations

import importlib

from write_config import MIX, WriteConfig
from writer import Writer

WRITERS = {  # name -> module, class
    "microworld": ("microworld_writer", "MicroworldWriter"),
    "openai": ("endpoint_writer", "EndpointWriter"),
    "stand_in": ("stand_in_writer", "StandInWriter"),
}


def require_writer(name: str) -> type[Writer]:
    """The class behind `writer`.

    Raises:
        ValueError: unknown name; lists the known ones.
    """
    if name not in WRITERS:
        raise ValueError(f"writer: no writer {name!r}; use one of: {', '.join(sorted(WRITERS))}")
    module, kind = WRITERS[name]
    return getattr(importlib.import_module(module), kind)


def operation_mix(config: WriteConfig) -> dict[str, float]:
    """Operation -> share, in the order of MIX, summing to 1.

    Raises:
        ValueError: an unknown operation, or invalid weights.
    """
    weights = config.mix or MIX
    for name, weight in weights.items():
        if name not in MIX:
            raise ValueError(f"mix: there is no operation {name!r}; there are: {', '.join(MIX)}")
        if not 0 <= weight < float("inf"):
            raise ValueError(f"mix: {name}: {weight} is not a weight; give 0 or more")
    total = sum(weights.values())
    if total <= 0:
        raise ValueError("mix: all weights are 0; give at least one operation a weight")
    return {name: weights[name] / total for name in MIX if weights.get(name)}
