"""Describers write captions for requests that have none. To add one: a class and a line in `DESCRIBERS`."""

from __future__ import annotations

from regionedit.describe.base import Describer, Given
from regionedit.describe.microworld import Microworld
from regionedit.describe.needs import Needs
from regionedit.describe.one_call import Endpoint, Vlm
from regionedit.describe.two_stage import TwoStage

DESCRIBERS: dict[str, type[Describer]] = {
    "given": Given,
    "microworld": Microworld,
    "two_stage": TwoStage,
    "vlm": Vlm,
    "endpoint": Endpoint,
}

__all__ = ["DESCRIBERS", "Describer", "Needs", "require_describer"]


def require_describer(name: str) -> type[Describer]:
    """The class behind `describe.name`; loads nothing.

    Raises:
        ValueError: unknown name; lists the known ones.
    """
    if name not in DESCRIBERS:
        raise ValueError(f"describe.name: no describer {name!r}; there are: {', '.join(sorted(DESCRIBERS))}")
    return DESCRIBERS[name]
