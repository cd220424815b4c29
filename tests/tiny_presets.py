"""The presets with tiny models in place of the public ones."""

from pathlib import Path

from regionedit.command_line import load_config
from regionedit.config import TrainConfig
from tests.pairs import SIZE

PRESETS = {path.stem.removeprefix("train_sd15_"): path for path in sorted(Path("configs").glob("train_sd15_*.yaml"))}


def tiny_preset(name: str, models: TrainConfig, decoder: Path, *changes: str) -> TrainConfig:
    """A preset as shipped but for models, sizes and torch.compile.

    Args:
        models: has the tiny encoders and the tiny generator.
        decoder: a tiny AutoencoderTiny, for the presets that name one.
    """
    approximate = load_config(TrainConfig, PRESETS[name]).generator.decoder
    return load_config(TrainConfig, PRESETS[name], [
        f"--encoders.clip={models.encoders.clip}", "--encoders.clip_pretrained=null",
        f"--encoders.instruction={models.encoders.instruction}", "--encoders.instruction_revision=null",
        f"--predictor.heads={1 if name == 'paper' else 4}",
        f"--generator.path={models.generator.path}", "--generator.revision=null", "--generator.variant=null",
        f"--generator.size={SIZE}", "--generator.decoder_revision=null",
        f"--generator.decoder={decoder if approximate else 'null'}", "--generator.compile=false",
        "--encoders.compile=false", f"--data.image_size={SIZE}", "--data.workers=0", *changes,
    ])  # fmt: skip
