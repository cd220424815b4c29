"""The frozen models of edits, each loaded once, when it is first needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from regionedit.describe import Describer, require_describer
from regionedit.encoders import FrozenCLIP, FrozenInstructionEncoder, load_encoders
from regionedit.generators import Generator, load_generator
from regionedit.mask_sources import Finder, require_mask_source

if TYPE_CHECKING:
    import torch

    from regionedit.config import EditConfig


class Models:
    """Frozen models on one device, shared by editors with different settings.

    A model is loaded once for each combination of the settings that decide its weights: path, revision, dtype. Other
    settings, such as steps or a threshold, are applied to the loaded model. Each method raises ValueError if a model
    cannot be loaded; the message names the field.

    Args:
        device: where all models but the describer's are.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._loaded: dict[tuple, Any] = {}

    def encoders(self, config: EditConfig) -> tuple[FrozenCLIP, FrozenInstructionEncoder]:
        """CLIP and the instruction encoder of `config.encoders`."""
        return self._once(("encoders", *astuple(config.encoders)), lambda: load_encoders(config.encoders, self.device))

    def generator(self, config: EditConfig) -> Generator:
        """The generator of `config.generator`. Raises ValueError: a setting that does not fit the loaded weights."""
        settings = config.generator
        weights = tuple(getattr(settings, name) for name in settings.weights)
        loaded = self._once(("generator", *weights), lambda: load_generator(settings, self.device))
        return loaded if loaded.config == settings else loaded.using(settings)

    def describer(self, config: EditConfig) -> Describer:
        """The describer of `config.describe`."""
        load = require_describer(config.describe.name).load
        return self._once(("describer", *astuple(config.describe)), lambda: load(config.describe))

    def mask_source(self, name: str, config: EditConfig) -> Finder:
        """The mask source or expression, with the settings of `config.region`."""
        region = config.region
        weights = region.checkpoint, region.sam, region.refine, astuple(region.attention), astuple(region.vlm_box)
        shared = (astuple(config.encoders),)  # settings of the models that `load` receives
        plan = require_mask_source(name)
        if plan.uses_generator:
            shared += config.generator.name, astuple(config.generator)

        def load() -> Finder:
            return plan.load(region, lambda: self.encoders(config), lambda: self.generator(config)).to(self.device)

        return self._once(("mask_source", name, weights, shared), load).using(region)

    def _once(self, key: tuple, load: Callable[[], Any]) -> Any:
        if key not in self._loaded:
            self._loaded[key] = load()
        return self._loaded[key]
