"""The linear probe: what it finds in features and in noise, and one row for each layer."""

import patch_probe
import torch

from regionedit.config import EncodersConfig
from regionedit.encoders import load_encoders
from regionedit.microworld.splits import sample


def test_a_linear_class_is_found_in_features_and_not_in_noise():
    torch.manual_seed(0)
    features_KD = torch.randn(600, 6)
    class_K = features_KD[:, :3].argmax(1)
    predicted_K = patch_probe.probe(features_KD[:400], class_K[:400], features_KD[400:])
    assert (predicted_K == class_K[400:]).float().mean() > 0.9
    from_noise_K = patch_probe.probe(features_KD[:400, 3:], class_K[:400], features_KD[400:, 3:])
    assert (from_noise_K == class_K[400:]).float().mean() < 0.5


def test_one_row_for_each_layer(tiny_clip_dir, tiny_t5_dir):
    clip, _ = load_encoders(EncodersConfig(clip=f"local-dir:{tiny_clip_dir}", instruction=str(tiny_t5_dir)))
    scenes = [sample("train", 0, i).source for i in range(24)]
    objects = patch_probe.objects_in(scenes, clip)
    count = sum(len(scene.things) for scene in scenes)
    assert len(objects.by_layer) == len(clip.model.visual.transformer.resblocks)
    assert all(len(layer_KD) == count for layer_KD in objects.by_layer)
    found = patch_probe.measure(clip, scenes[:16], scenes[16:])
    assert list(found)[-1] == "last, projected" and all(0 <= v <= 1 for row in found.values() for v in row.values())
