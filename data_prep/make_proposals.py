"""Store the generator's proposals once; training then needs no generator, and a step costs a fraction.

    python data_prep/make_proposals.py --config configs/train_microworld.yaml --data.proposals data/proposals
    python train.py                    --config configs/train_microworld.yaml --data.proposals data/proposals

A stored proposal cannot depend on the region that is being learned, so `step.proposal_mask` must be `everything`
or `random_hard` (boxes, blobs, a quarter everything). For every shard of `data.train`, the command writes a
`{shard}.proposals.tar` with `{key}.png` and `{key}.mask.png`. The generator works on pictures of `generator.size`; the
stored files have the size `data.image_size`, for which CLIP's input size suffices. With `data.proposal_rounds` every
sample gets several proposals, round after round; training may begin as soon as the first round is complete, while this
command continues. Each shard is written completely or not at all; run the command again to continue.

Shape letters: B batch, C channels, H W pixels.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from regionedit.command_line import errors_in_one_line, parse_command
from regionedit.config import TrainConfig
from regionedit.config.renamed import under_present_names
from regionedit.data.index import check_part
from regionedit.data.manifest import Manifest
from regionedit.data.rounds import round_folder
from regionedit.data.shards import BadSample, Sample, ShardReader
from regionedit.device import named, pick_device
from regionedit.dtypes import resolve_training
from regionedit.files import remove_leftovers, whole_file, write_atomic
from regionedit.generators import Generator, load_generator, noise_seed
from regionedit.images import png, to_pictures
from regionedit.progress import progress
from regionedit.proposal_masks import SETTINGS, proposal_mask

STORABLE = ("everything", "random_hard")


@dataclass
class ProposalsConfig(TrainConfig):
    """Make stored proposals with the generator of a training configuration.

    Args:
        device: cpu, cuda, cuda:1, mps; auto takes a GPU if there is one. `auto` and `cuda` choose among several GPUs:
            the number that torchrun or srun gave this process, else `part`.
        batch: number of pictures generated together.
        part: the share of the shards that this process works on, counted from 0.
        parts: number of shares that the shards are divided into, for several processes or machines.
    """

    device: str = "auto"
    batch: int = 64
    part: int = 0
    parts: int = 1


def make_proposals(config: ProposalsConfig) -> int:
    """Write the missing proposals; returns the number of shards written.

    Raises:
        ValueError: `data.proposals` is not set, shards are unusable, or the folder's proposals have other settings.
    """
    if config.data.proposals is None:
        raise ValueError("data.proposals: not set; give the folder to write to, e.g. --data.proposals data/proposals")
    if config.step.proposal_mask not in STORABLE:
        raise ValueError(
            f"step.proposal_mask: {config.step.proposal_mask!r} depends on the region that is being learned, and a "
            f"stored proposal cannot; use one of {', '.join(STORABLE)}"
        )
    check_part(config.part, config.parts)
    device = pick_device(config.device, config.part)
    config = resolve_training(config, device)
    out = Path(config.data.proposals)
    manifest = Manifest.open(config.data.train, marks=config.data.marks, allow_gaps=config.data.allow_gaps)
    wanted = manifest.samples()[config.part :: config.parts]
    _same_settings(config, out / SETTINGS)
    remove_leftovers(out, below=True)
    missing = [
        (number, path, samples)
        for number in range(config.data.proposal_rounds)
        for shard, samples in wanted
        if not (path := round_folder(out, number) / f"{shard}.proposals.tar").exists()
    ]
    if not missing:
        return 0
    print(f"proposals on {named(device)} in {config.generator.dtype}", flush=True)
    generator = load_generator(config.generator, device)
    reader = ShardReader(manifest, max(config.data.image_size, config.generator.size))
    with progress("proposals", sum(len(samples) for *_, samples in missing)) as advance:
        for number, path, samples in missing:
            with whole_file(path) as file, tarfile.open(fileobj=file, mode="w") as tar:
                for start in range(0, len(samples), config.batch):
                    chosen = samples[start : start + config.batch]
                    for name, data in _propose(config, generator, reader, chosen, number):
                        member = tarfile.TarInfo(name)
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
                    advance(len(chosen))
    return len(missing)


def _propose(
    config: ProposalsConfig, generator: Generator, reader: ShardReader, samples: range, number: int
) -> Iterator[tuple[str, bytes]]:
    """File names and contents. An unreadable sample gets empty files: training replaces the sample in any case."""
    read: dict[str, Sample | None] = {}
    for sample in samples:
        key = reader.manifest.key(sample)
        try:
            read[key] = reader.read(sample)
        except BadSample:
            read[key] = None
    which = (number,) if number else ()  # the round is part of every seed, except for the first
    good = {key: sample for key, sample in read.items() if sample is not None}
    made: dict[str, tuple[bytes, bytes]] = {}
    if good:
        pictures = torch.stack([torch.from_numpy(s.picture_HWC.copy()) for s in good.values()])
        images_BCHW = pictures.permute(0, 3, 1, 2).float() / 255
        mask_B1HW = proposal_mask(
            torch.zeros(len(good), 1),
            1,
            tuple(images_BCHW.shape[-2:]),
            config.step,
            lambda purpose: [noise_seed(config.seed, "proposal", purpose, key, *which) for key in good],
        )
        texts = [s.instruction if generator.needs == "instruction" else s.target_caption for s in good.values()]
        seeds = [noise_seed(config.seed, "proposal", key, *which) for key in good]
        proposals_BCHW = generator.propose(images_BCHW, mask_B1HW, texts, seeds)
        size = (config.data.image_size,) * 2
        if tuple(proposals_BCHW.shape[-2:]) != size:
            proposals_BCHW = F.interpolate(proposals_BCHW, size, mode="bicubic", antialias=True).clamp(0, 1)
            mask_B1HW = F.interpolate(mask_B1HW, size, mode="nearest")
        pairs = zip(to_pictures(proposals_BCHW), to_pictures(mask_B1HW), strict=True)
        made = dict(zip(good, ((png(proposal), png(mask)) for proposal, mask in pairs), strict=True))
    for key in read:
        proposal, mask = made.get(key, (b"", b""))
        yield f"{key}.png", proposal
        yield f"{key}.mask.png", mask


def _same_settings(config: ProposalsConfig, path: Path) -> None:
    """Save the settings that decide the proposals beside them, and refuse to continue with other settings."""
    settings = {
        "data.train": config.data.train,
        "data.image_size": config.data.image_size,
        "seed": config.seed,
        "step.proposal_mask": config.step.proposal_mask,
        **{f"generator.{name}": value for name, value in asdict(config.generator).items() if name != "compile"},
    }
    if path.exists():
        unset = {f"generator.{name}": value for name, value in asdict(type(config.generator)()).items()}
        stored = under_present_names(json.loads(path.read_text()))
        before = unset | stored  # a setting that is newer than the file had its default
        for name in settings:
            if before.get(name) != settings[name]:
                raise ValueError(
                    f"{name}: is {settings[name]!r}, but the proposals in {path.parent} were made with "
                    f"{before.get(name)!r}; restore it, or choose another data.proposals"
                )
        return
    write_atomic(path, json.dumps(settings, indent=2).encode())


def main() -> None:
    config = parse_command(ProposalsConfig)
    with errors_in_one_line("make_proposals.py"):
        print(f"{make_proposals(config)} shards written to {config.data.proposals}")


if __name__ == "__main__":
    main()
