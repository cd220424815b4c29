"""The frozen models of a configuration, each loaded once, when it is first needed."""

from __future__ import annotations

from dataclasses import astuple
from functools import cached_property

from regionedit.config import EditConfig, GeneratorConfig, RegionConfig
from regionedit.describe import Describer, require_describer
from regionedit.device import pick_device
from regionedit.encoders import FrozenCLIP, FrozenInstructionEncoder, load_encoders
from regionedit.generators import Generator, load_generator, require_settings
from regionedit.mask_sources import Finder, load_mask_source


class Models:
    """The frozen models of a configuration, each loaded when it is first needed; shared by `Editor.using`."""

    def __init__(self, config: EditConfig):
        self.config = config
        self.device = pick_device(config.device)
        self._mask_sources: dict[tuple, Finder] = {}

    @cached_property
    def encoders(self) -> tuple[FrozenCLIP, FrozenInstructionEncoder]:
        return load_encoders(self.config.encoders, self.device)

    @cached_property
    def generator(self) -> Generator:
        return load_generator(self.config.generator, self.device)

    def generator_with(self, settings: GeneratorConfig) -> Generator:
        """The generator with other settings; all but its weights may differ from the configuration.

        Raises:
            ValueError: a setting that this generator does not have.
        """
        if settings == self.config.generator:
            return self.generator
        require_settings(settings)
        return self.generator.using(settings)

    @cached_property
    def describer(self) -> Describer:
        return require_describer(self.config.describe.name).load(self.config.describe)

    def mask_source(self, name: str, region: RegionConfig | None = None) -> Finder:
        """The mask source or expression, with the configuration's `region` settings or other ones."""
        region = region or self.config.region
        key = name, astuple(region)
        if key not in self._mask_sources:
            loaded = load_mask_source(name, region, lambda: self.encoders, lambda: self.generator)
            self._mask_sources[key] = loaded.to(self.device)
        return self._mask_sources[key]
