"""Peak memory of full-size training steps, and what each memory setting saves, counted by tensor on the meta device.

    python -m benchmarks.memory [--batch 32]

`memory_{preset}`: the step of configs/train_sd15_{preset}.yaml, weights included. Baseline: the paper taken literally
at the same batch, size and number of steps, without memory settings (`full_size_step.literal`); for `stored` and
`fast512` the baseline of exact512, for `max256` that of paper256. `memory_exact512_1`: exact512 and its baseline with a
single denoising step, where the decoder has its largest share. `memory_chunk_4_1`: that baseline with chunks of four
and no other setting. Target for exact512: at most 0.42 times, with the same gradient (tests/test_memory.py).

`kept_...`: bytes that one network keeps for the backward pass of one picture at 512 px, with one memory setting and
without.

Weights are bfloat16 except CLIP's and T5's, as in the presets. Workspaces of operations and gaps of the allocator are
not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from benchmarks.full_size_models import inpaint_generator
from benchmarks.full_size_step import batch_for, build, literal, preset
from benchmarks.harness import COUNTED, options, record
from benchmarks.peak_memory import PeakMemory, flash_attention
from regionedit.config import MemoryConfig, TrainConfig

GIB = 2**30
BASELINES = {"paper256": "paper256", "max256": "paper256", "fast512": "exact512", "stored": "exact512"}


def peak(config: TrainConfig, batch: int) -> float:
    """Peak GiB of one step, forward and backward, weights included."""
    module = build(config, "meta")
    pairs = batch_for(config, module, "meta", batch)
    with flash_attention(), PeakMemory() as memory:
        loss, _ = module.loss(module.step(pairs, 0), config.loss)
        loss.backward()
    clip, instruction, generator = module.frozen
    networks = [clip, instruction, module.predictor, *(generator.modules.values() if generator else ())]
    weights = sum(t.nbytes for network in networks for t in (*network.parameters(), *network.buffers()))
    return (memory.peak + weights) / GIB


def one_step(config: TrainConfig) -> TrainConfig:
    return replace(config, generator=replace(config.generator, num_inference_steps=1))


def kept(through: Callable[[], torch.Tensor], weights: Iterable[torch.Tensor]) -> float:
    """MiB that autograd keeps for a call, without weights; shared memory counts once."""
    known = {id(weight.untyped_storage()) for weight in weights}
    found: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in known:
            found[id(storage)] = storage
        return tensor

    with flash_attention(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = through()
    assert result.requires_grad
    return sum(storage.nbytes() for storage in found.values()) / 2**20


def kept_by(network: str, memory: MemoryConfig) -> float:
    """MiB that the U-Net or the KL decoder keeps for one picture's latent."""
    config = preset("exact512").generator
    generator = inpaint_generator(config)
    generator.save_memory(memory)
    latent_1Cyx = torch.empty(1, 4, config.size // 8, config.size // 8, device="meta", requires_grad=True)
    if network == "decoder":
        return kept(lambda: generator.decode(latent_1Cyx), generator.vae.parameters())
    dtype = generator.unet.dtype
    input_1Cyx = torch.cat([latent_1Cyx, latent_1Cyx, latent_1Cyx[:, :1]], 1).to(dtype)
    context_1LD = torch.empty(1, 77, 768, device="meta", dtype=dtype)

    def predict() -> torch.Tensor:
        return generator.unet(input_1Cyx, torch.tensor(500), encoder_hidden_states=context_1LD).sample

    return kept(predict, generator.unet.parameters())


def main() -> None:
    batch = options(__doc__, batch=(32, 1, "pictures on one GPU in a step")).parse_args().batch
    ways = {"frozen": MemoryConfig(), "checkpointed": MemoryConfig(0, False, ["unet", "autoencoder"])}
    for network in ("decoder", "unet"):
        plain = kept_by(network, MemoryConfig(frozen_convolutions=False))
        for name, memory in ways.items():
            record(f"kept_{network}_{name}", kept_by(network, memory), plain, "MiB a picture", COUNTED)
    unit = f"GiB, {batch} pictures"
    exact = preset("exact512")
    found = {"exact512": peak(literal(exact), batch), "paper256": peak(literal(preset("paper256")), batch)}
    record("memory_exact512", peak(exact, batch), found["exact512"], unit, COUNTED)
    plain = one_step(literal(exact))
    one = peak(plain, batch)
    record("memory_exact512_1", peak(one_step(exact), batch), one, unit, COUNTED)
    chunked = replace(plain, memory=replace(plain.memory, chunk=4))
    record("memory_chunk_4_1", peak(chunked, batch), one, unit, COUNTED)
    for name, baseline in BASELINES.items():
        record(f"memory_{name}", peak(preset(name), batch), found[baseline], unit, COUNTED)


if __name__ == "__main__":
    main()
