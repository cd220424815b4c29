"""The training loop of all tiny frozen models: a fixed number of steps, resumable, without pickle.

The learning rate follows the share of the steps that are done. Running the same command again continues from the last
state, which is saved every two minutes. A state without Adam's moments, or in half precision, is also a valid start.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from muon import Muon
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from regionedit.device import pick_dtype
from regionedit.files import write_atomic

SAVE_EVERY = 120.0  # seconds between states on disk
LOOK_EVERY = 5  # steps between checks of the loss and the clock: on a GPU each check waits
MOMENTS = ("exp_avg", "exp_avg_sq", "momentum")


def arguments(description: str, learning_rate: float, steps: int) -> argparse.ArgumentParser:
    """The options of every pre-training script; the parameters are defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/microworld_models"), help="folder of scene pools and training states"
    )
    parser.add_argument("--steps", type=int, default=steps, help="training steps")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches")
    parser.add_argument("--learning_rate", type=float, default=learning_rate, help="peak learning rate")
    return parser


def two_part_arguments(description: str, batch: int, groups: int) -> argparse.ArgumentParser:
    """The options of a generator that is trained in two parts. `--steps` or `--learning_rate` of 0, the default, means
    the value that the script has for the part."""
    parser = arguments(description, learning_rate=0.0, steps=0)
    parser.add_argument("--part", choices=("tokenizer", "transformer"), required=True)
    parser.add_argument(
        "--inpaint", type=Path, default=Path("checkpoints/microworld/inpaint"), help="in-painter with the text encoder"
    )
    parser.add_argument("--batch", type=int, default=batch, help="pictures per step, a multiple of 4")
    parser.add_argument("--groups", type=int, default=groups, help="groups of four scenes in the pool")
    parser.add_argument("--guidance", type=float, default=3.0, help="guidance of the held-out edits")
    return parser


def begin(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Path]:
    """Parse the arguments, and set torch's threads and seed; returns them and the path of the training's state."""
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    return args, args.work / f"{args.out.name}_{args.seed}.safetensors"


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of a training.

    Args:
        steps: of the whole training.
        learning_rate: its peak, after a linear rise over the first `warmup` of the steps; then a cosine down to 1 %.
        warmup: share of the steps.
        weight_decay: AdamW's, on matrices only.
        betas: AdamW's.
        clip: largest gradient norm.
        evaluate_every: seconds between held-out scores.
        average: decay of the running average of the weights, which is scored and kept; 0: the last weights.
        muon: linear layers and ordinary convolutions follow Muon, the other weights AdamW.
    """

    steps: int
    learning_rate: float
    warmup: float = 0.03
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    evaluate_every: float = 180.0
    average: float = 0.0
    muon: bool = False

    def rate(self, share: float) -> float:
        """Learning rate when `share` (0-1) of the steps are done."""
        rise = min(1.0, (share + 1e-3) / self.warmup)
        fall = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        return self.learning_rate * rise * fall


def optimizer_of(model: nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only; with `muon`, Muon beside it."""
    settings = {"lr": schedule.learning_rate, "betas": schedule.betas, "fused": True}
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": schedule.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    if not schedule.muon:
        return torch.optim.AdamW(groups, **settings)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.groups == 1)]
    by_muon = {id(layer.weight) for layer in layers if layer.weight.requires_grad}
    groups.append(groups[0] | {"params": [p for p in matrices if id(p) in by_muon], "orthogonal": True})
    groups[0]["params"] = [p for p in matrices if id(p) not in by_muon]
    return Muon(groups, **settings)


class Averaged:
    """A running average of a model's weights, which replaces them inside `used`.

    Args:
        decay: share of the old average that is kept at each step (less in the first steps); 0: no average.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.weights = [p for p in model.parameters() if p.requires_grad] if decay else []
        self.averages = [p.detach().clone() for p in self.weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after step number `step`, from 1."""
        if self.weights:
            decay = min(self.decay, step / (step + 10))
            torch._foreach_lerp_(self.averages, self.weights, 1 - decay)

    @contextmanager
    def used(self):
        """The model computes with the average inside this context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for place, weight in enumerate(self.weights):
            weight.data, self.averages[place] = self.averages[place], weight.data


def save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, position: dict[str, float], averaged: Averaged
) -> None:
    """Weights, their average, Adam's moments and the position (step, seconds) in one safetensors file, atomically."""
    tensors = {f"model/{name}": p.detach().clone() for name, p in model.state_dict().items()}
    places = {id(weight): place for place, weight in enumerate(averaged.weights)}
    for name, p in model.named_parameters():
        if id(p) in places:
            tensors[f"average/{name}"] = averaged.averages[places[id(p)]]
        for moment in MOMENTS:
            if moment in optimizer.state.get(p, {}):
                tensors[f"{moment}/{name}"] = optimizer.state[p][moment]
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}  # they may be channels-last
    write_atomic(path, save(tensors, metadata={"position": json.dumps(position)}))


def load_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, averaged: Averaged) -> dict[str, float]:
    """Restore what `save_state` wrote, and return the position; {} if the file does not exist.

    Moments that the file lacks start at zero, and averages at the weights.

    Raises:
        ValueError: the file belongs to a model with other shapes.
    """
    if not path.is_file():
        return {}
    with safe_open(path, "pt") as file:
        position = json.loads(file.metadata()["position"])
        names = set(file.keys())
        stored = {name[len("model/") :]: file.get_tensor(name) for name in names if name.startswith("model/")}
        try:
            model.load_state_dict(stored)
        except RuntimeError as error:
            raise ValueError(f"{path} holds another model; remove it to start afresh ({error})") from error
        places = {id(weight): place for place, weight in enumerate(averaged.weights)}
        for name, p in model.named_parameters():
            if id(p) in places:
                kept = file.get_tensor(f"average/{name}") if f"average/{name}" in names else p.detach()
                averaged.averages[places[id(p)]].copy_(kept)
            moments = {m: file.get_tensor(f"{m}/{name}") for m in MOMENTS if f"{m}/{name}" in names}
            if moments:
                moments = {m: torch.empty_like(p).copy_(moment) for m, moment in moments.items()}
                optimizer.state[p] = {"step": torch.tensor(float(position["step"])), **moments}
    return position


def train(
    model: nn.Module,
    loss_of: Callable[[int, float], Tensor],
    schedule: Schedule,
    state: Path,
    seed: int,
    evaluate: Callable[[], dict[str, float]],
) -> dict[str, float]:
    """Train in place until all steps are done; afterwards the model has the averaged weights, if they are averaged.

    Args:
        loss_of: (step, share of the steps done) -> scalar loss; its data must depend only on the step, so that a
            resumed run continues with new data.
        state: file to resume from and save to.
        seed: torch's generator is seeded by (seed, step) before each step.
        evaluate: held-out scores, printed from time to time and returned at the end.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    optimizer, averaged = optimizer_of(model, schedule), Averaged(model, schedule.average)
    position = load_state(state, model, optimizer, averaged)
    step, before = int(position.get("step", 0)), float(position.get("seconds", 0.0))
    console = Console()
    if step:
        console.print(f"resuming at step {step} after {before:.0f} s")
    start = saved = evaluated = time.monotonic()
    running = 0.0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("loss", total=schedule.steps, completed=step)
        model.train()
        while step < schedule.steps:
            share = step / schedule.steps
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(share)
            torch.manual_seed((seed << 32) + step)
            loss = loss_of(step, share)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
            optimizer.step()
            step += 1
            averaged.update(step)
            if step % LOOK_EVERY and step < schedule.steps:
                continue
            if not torch.isfinite(loss):
                raise FloatingPointError(f"loss is {loss.item()} at step {step}; lower the learning rate")
            running = loss.item() if running == 0 else 0.8 * running + 0.2 * loss.item()
            progress.update(bar, completed=step, description=f"loss {running:.3f}")
            now = time.monotonic()
            if now - evaluated > schedule.evaluate_every:
                model.eval()
                with averaged.used():
                    scores = evaluate()
                console.print(f"{before + now - start:6.0f} s step {step} loss {running:.4f} {one_line(scores)}")
                model.train()
                evaluated = time.monotonic()
            if now - saved > SAVE_EVERY or step == schedule.steps:
                position = {"step": step, "seconds": before + time.monotonic() - start}
                save_state(state, model, optimizer, position, averaged)
                saved = time.monotonic()
    model.eval()
    with torch.no_grad():
        for weight, average in zip(averaged.weights, averaged.averages, strict=True):
            weight.copy_(average)
    scores = evaluate() | {"steps": step, "minutes": round(position["seconds"] / 60, 1), "loss": running}
    console.print(f"done: {one_line(scores)}")
    return scores


def made_once(folder: Path, name: str, of: nn.Module, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors from `make`, kept in a file that is named after this network's weights, for resumed runs."""
    digest = hashlib.sha256()
    for weight in of.state_dict().values():
        digest.update(weight.contiguous().cpu().numpy().tobytes())
    path = folder / f"{name}_{digest.hexdigest()[:12]}.safetensors"
    if not path.is_file():
        write_atomic(path, save({key: tensor.contiguous() for key, tensor in make().items()}))
    return load_file(path)


def arithmetic(device: str = "cpu") -> torch.autocast:
    """Autocast to the precision that `auto` selects for frozen networks on this device."""
    return torch.autocast(device, torch.bfloat16, enabled=pick_dtype("auto", device) == "bfloat16")


@contextmanager
def plain_attention():
    """Inside this context, attention is two matrix products and a softmax.

    On a CPU torch's fused kernel has no fast backward pass: with 90 to 257 tokens and 64 channels a head, a training
    step in bfloat16 takes half the time this way.
    """

    def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
        if dropout_p or is_causal:
            raise ValueError("plain_attention: dropout_p and is_causal are not supported; pass attn_mask")
        score = (query * (scale or query.shape[-1] ** -0.5)) @ key.transpose(-2, -1)
        with torch.autocast(score.device.type, enabled=False):
            score = score if attn_mask is None else score + attn_mask.to(score.dtype)
            weight = score.softmax(-1)
        return weight @ value

    fused = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused


def one_line(scores: dict[str, float]) -> str:
    """Scores on one line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in scores.items())


def save_half(model: nn.Module, folder: Path) -> None:
    """Write a model of transformers in half precision; it loads in float32, because only the file is in half."""
    model.half().save_pretrained(folder)
    path = folder / "config.json"
    write_indented(path, json.loads(path.read_text()) | {"dtype": "float32"})


def write_indented(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


@contextmanager
def finished_folder(out: Path, scores: dict):
    """A temporary folder; when the block ends, its files and `scores.json` move to `out`, each one atomically."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as name:
        folder = Path(name)
        yield folder
        write_indented(folder / "scores.json", scores)
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            with open(file, "rb") as written:
                os.fsync(written.fileno())
            target = out / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
