"""Tiny random Segment Anything models of the real classes, with their processors."""

from pathlib import Path

from tests.tiny_models import IMAGE_SIZE, PATCH, WIDTH, seeded, stir

DECODER = {
    "hidden_size": WIDTH,
    "mlp_dim": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": WIDTH,
}


def write_sam(folder: Path, seed: int = 0) -> Path:
    """A SamModel with its processor: pictures of 32 px, masks of 16."""
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    config = SamConfig(
        vision_config={
            "hidden_size": WIDTH,
            "output_channels": WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH,
            "mlp_dim": WIDTH,
            "num_pos_feats": WIDTH // 2,
            "global_attn_indexes": [0],
            "window_size": 2,
            "initializer_range": 0.02,
        },
        prompt_encoder_config={"hidden_size": WIDTH, "image_size": IMAGE_SIZE, "patch_size": PATCH},
        mask_decoder_config=DECODER,
    )
    _save(SamModel, config, folder, seed)
    sides = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    SamProcessor(SamImageProcessor(size={"longest_edge": IMAGE_SIZE}, pad_size=sides)).save_pretrained(folder)
    return folder


def write_sam2(folder: Path, seed: int = 0) -> Path:
    """A Sam2Model with its processor: pictures of 128 px, feature maps of 32, 16 and 8."""
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model, Sam2Processor

    size = 4 * IMAGE_SIZE
    config = Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "image_size": [size, size],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 24, 32],
                "num_attention_heads_per_stage": [1, 1, 1, 1],
                "window_size_per_stage": [8, 4, 8, 4],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [32, 24, 16, 8],
            "backbone_feature_sizes": [[size // 4] * 2, [size // 8] * 2, [size // 16] * 2],
            "fpn_hidden_size": WIDTH,
        },
        prompt_encoder_config={"hidden_size": WIDTH, "image_size": size, "patch_size": 16},
        mask_decoder_config=DECODER,
    )
    _save(Sam2Model, config, folder, seed)
    Sam2Processor(Sam2ImageProcessor(size={"height": size, "width": size})).save_pretrained(folder)
    return folder


def _save(kind: type, config, folder: Path, seed: int) -> None:
    with seeded(seed):
        model = kind(config)
    stir(model, seed).save_pretrained(folder)
