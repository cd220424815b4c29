"""Linear probes of CLIP's patches: an object's colour and shape, read from the patch that shows most of it.

    python experiments/patch_probe.py --out docs/study/patch_probe.json

The region predictor gets the picture only through these patches, so what no probe can read from them cannot guide the
region. Each layer of the image encoder has its own probe, trained on 1,500 scenes and scored on 500 others.

Shape letters: B pictures, N patches, D width, K objects, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from harness import options, rounded, show, write_json
from known_edits import chunks, pictures
from torch import Tensor

from regionedit.command_line import load_config
from regionedit.config import TrainConfig
from regionedit.encoders import FrozenCLIP, load_encoders
from regionedit.masks import downsample
from regionedit.microworld.renderer import coverage
from regionedit.microworld.scene import COLORS, SHAPES, Scene, sample_scene
from regionedit.microworld.splits import scene_rng

TRAINED_ON, SCORED_ON = (3, 1500), (4, 500)  # (stream of the split "pretrain", scenes)
SMALL = 9.0  # radius in pixels below which an object is small


@dataclass(frozen=True)
class Objects:
    """K objects and the patches that show them.

    Args:
        by_layer: features [K, D] of each layer, from the first to the last, which is projected as for the predictor.
        color_K, shape_K: class indices.
        radius_K: in pixels.
    """

    by_layer: list[Tensor]
    color_K: Tensor
    shape_K: Tensor
    radius_K: Tensor


@torch.no_grad()
def objects_in(scenes: list[Scene], clip: FrozenCLIP) -> Objects:
    """All objects in these scenes, as CLIP encodes them."""
    visual, layers = clip.model.visual, [[] for _ in clip.model.visual.transformer.resblocks]
    for b in chunks(len(scenes), 100):
        images_BCHW = pictures([scenes[i] for i in b])
        pixels = clip.preprocess(images_BCHW)
        output = visual.forward_intermediates(pixels, normalize_intermediates=False, output_fmt="NLC")
        maps = [*output["image_intermediates"][:-1], clip.encode_image(images_BCHW).patches_BND]
        for row, i in enumerate(b):
            shown_KN = downsample(torch.from_numpy(coverage(scenes[i]))[:, None].float(), clip.grid)
            for layer, patches_BND in zip(layers, maps, strict=True):
                layer.append(patches_BND[row, shown_KN.argmax(1)])
    things = [thing for scene in scenes for thing in scene.things]
    return Objects(
        [torch.cat(layer).float() for layer in layers],
        torch.tensor([list(COLORS).index(t.color) for t in things]),
        torch.tensor([list(SHAPES).index(t.shape) for t in things]),
        torch.tensor([t.radius for t in things]),
    )


def probe(train_KD: Tensor, class_K: Tensor, test_KD: Tensor) -> Tensor:
    """Classes that a linear softmax classifier on standardised features predicts for the test rows, [K]."""
    mean_D, deviation_D = train_KD.mean(0), train_KD.std(0) + 1e-6
    weight = torch.zeros(train_KD.shape[1], int(class_K.max()) + 1, requires_grad=True)
    bias = torch.zeros(weight.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")
    x_KD = (train_KD - mean_D) / deviation_D

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x_KD @ weight + bias, class_K) + 1e-3 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return ((test_KD - mean_D) / deviation_D @ weight + bias).argmax(1)


def measure(clip: FrozenCLIP, trained_on: list[Scene], scored_on: list[Scene]) -> dict[str, dict[str, float]]:
    """Share of objects whose colour, and whose shape, each layer's probe predicts correctly."""
    train, test = objects_in(trained_on, clip), objects_in(scored_on, clip)
    small_K, results = test.radius_K < SMALL, {}
    for number, (train_KD, test_KD) in enumerate(zip(train.by_layer, test.by_layer, strict=True), 1):
        color_K = probe(train_KD, train.color_K, test_KD) == test.color_K
        shape_K = probe(train_KD, train.shape_K, test_KD) == test.shape_K
        name = "last, projected" if number == len(train.by_layer) else f"layer {number}"
        scores = {
            "color": color_K,
            "shape": shape_K,
            "shape, small": shape_K[small_K],
            "shape, large": shape_K[~small_K],
        }
        results[name] = {what: float(correct_K.float().mean()) for what, correct_K in scores.items()}
    return rounded(results)


def main() -> None:
    config = ("configs/train_microworld.yaml", "training config with the CLIP")
    args = options(__doc__, config, "docs/study/patch_probe.json").parse_args()
    clip, _ = load_encoders(load_config(TrainConfig, args.config).encoders)
    scenes = [
        [sample_scene(scene_rng("pretrain", stream, i), allow_unseen=True) for i in range(count)]
        for stream, count in (TRAINED_ON, SCORED_ON)
    ]
    results = measure(clip, *scenes)
    write_json(args.out, results)
    show("linear probes of the patch that shows most of an object", results)


if __name__ == "__main__":
    main()
