"""CPU milliseconds that the training process spends on the data of 32 pictures, beside what an earlier version spent.

    python -m benchmarks.main_process [--rounds 5]

Ours: take a batch from the loader and copy it into a buffer that is used again, as pinning does; loader processes
decode, resize and tokenise. Baseline: also turn the pictures into floats and tokenise both captions, the instruction
and the generator's text, in the training process. CPU time of this process by `time.process_time`, one thread, JPEG
pictures, medians over rounds that take turns. The tokenizers are CLIP's real one and the microworld's T5 and
in-painter. Target: at most a tenth of 49 ms (256 px) and of 189 ms (512 px), measured in an earlier version.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import open_clip
import torch
from transformers import AutoTokenizer

from benchmarks.harness import medians, options, record
from benchmarks.loader import write_shards
from regionedit.config import DataConfig
from regionedit.data.batches import scaled
from regionedit.data.loader import TrainLoader
from regionedit.data.manifest import Manifest
from regionedit.encoders import instruction_tokens
from regionedit.generators.pipelines import token_ids

BATCH, MODELS = 32, "checkpoints/microworld"
CLIP = open_clip.get_tokenizer("ViT-L-14")
T5, IN_PAINTER = (AutoTokenizer.from_pretrained(f"{MODELS}/{name}") for name in ("t5", "inpaint/tokenizer"))


def tokenize(instructions: list[str], sources: list[str], targets: list[str]) -> dict[str, torch.Tensor]:
    ids_BM, mask_BM = instruction_tokens(T5, 77, instructions)
    captions = {"source_ids": CLIP(sources), "target_ids": CLIP(targets)}
    generator = token_ids(IN_PAINTER, ["", *targets])
    return {"instruction_ids": ids_BM, "instruction_mask": mask_BM, "generator_ids": generator} | captions


def milliseconds(manifest: Manifest, size: int, in_workers: bool) -> float:
    """CPU time of this process for one batch, without the start of the loader processes."""
    data = DataConfig(global_batch=BATCH, image_size=size, workers=1)
    batches = iter(TrainLoader(manifest, data, seed=0, tokenize=tokenize if in_workers else None))
    pinned_BCHW = next(batches).images_BCHW.clone()
    began, count = time.process_time(), 0
    for batch in batches:
        pinned_BCHW.copy_(batch.images_BCHW)
        if not in_workers:
            scaled(batch)
            tokenize(*map(list, (batch.instructions, batch.source_captions, batch.target_captions)))
        count += 1
    return (time.process_time() - began) / count * 1000


def main() -> None:
    rounds = options(__doc__, rounds=(5, 1, "rounds, each of both ways")).parse_args().rounds
    torch.set_num_threads(1)
    for size in (256, 512):
        with tempfile.TemporaryDirectory() as temporary:
            write_shards(Path(temporary), 250, "jpg", size)
            manifest = Manifest.open(temporary)
            both = medians(*(partial(milliseconds, manifest, size, there) for there in (True, False)), rounds=rounds)
        record(f"main_process_{size}", *both, "CPU ms of the training process for 32 pictures")


if __name__ == "__main__":
    main()
