"""Pre-trains the microworld's CLIP from scratch, only on picture-caption pairs and with contrastive losses.

    python experiments/pretrain_clip.py --out checkpoints/microworld/clip --threads 1
    python experiments/pretrain_clip.py --out checkpoints/microworld/judge --patch_size 16 --seed 1 --steps 4000

Each batch contains groups of four scenes that differ in one attribute and have captions worded alike: hard negatives
within the batch. With patch 4, half of the patches are dropped most of the time, which makes a step two to three times
cheaper. Position embeddings start as sines and cosines, and many batches train shapes only: the model learns colours
and counts within minutes, but not shapes.

Training has three stages. At first, texts are compared with the class token only, because it learns shapes several
times faster than the mean of the patches. Then they are also compared with the mean of the patches, and in the second
half instead with the patches that fit their words best: otherwise the class token encodes what is in the picture, but
the patches do not encode where. The README of the checkpoints has results without the second stage, and with the third
alone.

Shape letters: B pictures, T tokens, D embedding width.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import word_tokenizer
from measure import HeldOut, clip_scores
from open_clip.model import CLIP
from pretraining import Schedule, arguments, arithmetic, begin, finished_folder, plain_attention, train, write_indented
from safetensors.torch import save_file
from scene_pool import GROUP, MEAN, STD, both_pools, to_input
from torch import Tensor
from torch.nn import functional as F

from regionedit.microworld.scene import SIZE

CONTEXT = 40
EMBED = 128
GROUPS_PER_BATCH = 32
# shares of the steps at which the second stage (mean of the patches) and the third (word by word) begin
MEAN_FROM, LATE_FROM = 0.33, 0.5
LATE_PAIRS = 64  # of the 128 in a batch, compared word by word in the third stage
# (share of the steps at which it begins, share of patches dropped)
PATCH_DROPOUT = ((0.0, 0.5), (0.7, 0.0))
# share of the batches that train shapes only, which are learned last
SHAPES_ONLY = 0.6


def configuration(patch_size: int, vocabulary_size: int) -> dict:
    """The contents of open_clip_config.json."""
    return {
        "model_cfg": {
            "embed_dim": EMBED,
            "vision_cfg": {"image_size": SIZE, "patch_size": patch_size, "width": 128, "layers": 4, "head_width": 32},
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": vocabulary_size,
                "width": 128,
                "heads": 4,
                "layers": 3,
                # open_clip reads the tokenizer from the model's folder; the name only tells it that there is one.
                "hf_tokenizer_name": "microworld",
            },
        },
        "preprocess_cfg": {"size": SIZE, "mean": [MEAN] * 3, "std": [STD] * 3, "resize_mode": "squash"},
    }


def held(plan: tuple[tuple[float, float], ...], share: float) -> float:
    """The value of the last (start, value) entry of a plan whose start the share of the steps has reached."""
    return [value for start, value in plan if share >= start][-1]


def encode_words(model: CLIP, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Unit embeddings BTD of all tokens, and the index of the end token, B. The padding behind the longest text is cut
    off: the text encoder is causal, so nothing before the end token changes, and a step gets cheaper."""
    length = int((tokens_BT != 0).sum(1).max())
    tokens = tokens_BT[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return F.normalize(x @ model.text_projection, dim=-1), tokens.argmax(-1)


def encode_text(model: CLIP, tokens_BT: Tensor) -> Tensor:
    """Unit text embeddings BD, as from `model.encode_text`."""
    words_BTD, end_B = encode_words(model, tokens_BT)
    return words_BTD[torch.arange(len(end_B)), end_B]


def encode_pictures(model: CLIP, pictures_BHWC: np.ndarray) -> tuple[Tensor, Tensor]:
    """Unit picture embeddings BD and projected patches BND."""
    visual = model.visual
    x = visual.ln_post(visual.transformer(visual._embeds(to_input(pictures_BHWC)))) @ visual.proj
    return F.normalize(x[:, 0], dim=-1), x[:, 1:]


def wave_positions(grid: int, width: int) -> Tensor:
    """[grid * grid, width] sines and cosines of row and column, periods 4 to 64 patches."""
    rate = torch.exp(torch.linspace(np.log(np.pi / 2), np.log(2 * np.pi / 64), width // 4))
    angle = torch.arange(grid).float()[:, None] * rate
    wave = torch.cat([angle.sin(), angle.cos()], 1)
    rows, columns = wave[:, None].expand(grid, grid, -1), wave[None].expand(grid, grid, -1)
    return 0.5 * torch.cat([rows, columns], -1).reshape(grid * grid, width)


def late_interaction(patches_BND: Tensor, words_BTD: Tensor, end_B: Tensor) -> Tensor:
    """Similarity of every picture with every text, [pictures, texts]: the mean over a text's words of the cosine with
    the patch that fits best (FILIP, Yao et al. 2022, texts to patches). It makes patches encode what they show."""
    patches_BND = F.normalize(patches_BND, dim=-1)
    best = torch.stack([(words_BTD @ patches_ND.T).amax(-1) for patches_ND in patches_BND])  # picture, text, word
    place_T = torch.arange(words_BTD.shape[1])
    counted_BT = ((place_T > 0) & (place_T <= end_B[:, None])).float()  # no start token, no padding
    return (best.float() * counted_BT).sum(-1) / counted_BT.sum(-1)


def contrastive_loss(similarity: Tensor, scale: Tensor, captions: list[str]) -> Tensor:
    """Symmetric cross-entropy of [pictures, texts]; an equal caption of another picture is no negative."""
    logits = scale.exp().clamp(max=100) * similarity.float()
    ids = torch.tensor([{c: i for i, c in enumerate(captions)}[c] for c in captions])
    same = (ids[:, None] == ids) & ~torch.eye(len(ids), dtype=torch.bool)
    logits = logits.masked_fill(same, float("-inf"))
    target = torch.arange(len(logits))
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def save(model: CLIP, tokenizer, patch_size: int, scores: dict[str, float], out: Path) -> None:
    """Write the folder that `open_clip.create_model_and_transforms("local-dir:...")` loads, in half precision."""
    with finished_folder(out, scores) as folder:
        weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
        save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
        write_indented(folder / "open_clip_config.json", configuration(patch_size, len(tokenizer)))
        word_tokenizer.save(tokenizer, folder)


def main() -> None:
    parser = arguments(__doc__, steps=8000, learning_rate=1e-3)
    parser.add_argument("--patch_size", type=int, default=8, help="pixels; 4 gives 16 x 16 patches")
    parser.add_argument("--groups", type=int, default=16000, help="groups of four scenes in the pool")
    args, state = begin(parser)

    tokenizer = word_tokenizer.build(word_tokenizer.words(), start=True, max_length=CONTEXT)
    config = configuration(args.patch_size, len(tokenizer))["model_cfg"]
    text = {k: v for k, v in config["text_cfg"].items() if not k.startswith(("hf_", "tokenizer"))}
    model = CLIP(EMBED, config["vision_cfg"] | {"patch_dropout": 0.5}, text)
    with torch.no_grad():
        model.visual.positional_embedding[1:] = wave_positions(SIZE // args.patch_size, 128)
    pools = both_pools(args.work, args.groups)
    watched, reported = HeldOut(100), HeldOut(1000)

    def tokens(captions: list[str]) -> Tensor:
        options = {"padding": True, "truncation": True, "max_length": CONTEXT, "return_tensors": "pt"}
        return tokenizer(captions, **options).input_ids

    def loss_of(step: int, share: float) -> Tensor:
        model.visual.patch_dropout.prob = held(PATCH_DROPOUT, share) if args.patch_size == 4 else 0.0
        shapes_only = np.random.default_rng([args.seed, 3, step]).random() < SHAPES_ONLY
        brief = shapes_only and step % 2 == 0
        batch = pools[int(shapes_only)].batch(args.seed, step, GROUPS_PER_BATCH, brief)
        with arithmetic(), plain_attention():
            image_BD, patches_BND = encode_pictures(model, batch.pictures)
            words_BTD, end_B = encode_words(model, tokens(batch.captions))
            text_BD = words_BTD[torch.arange(len(end_B)), end_B]
        scale = model.logit_scale
        loss = contrastive_loss(image_BD.float() @ text_BD.float().T, scale, batch.captions)
        if share < MEAN_FROM:
            return loss
        if share < LATE_FROM:
            mean_BD = F.normalize(patches_BND.float().mean(1), dim=-1)
            return loss + contrastive_loss(mean_BD @ text_BD.float().T, scale, batch.captions)
        late = slice(LATE_PAIRS)
        with arithmetic():
            by_patches = late_interaction(patches_BND[late], words_BTD[late], end_B[late])
        return loss + contrastive_loss(by_patches, scale, batch.captions[late])

    def scores(held_out: HeldOut) -> dict[str, float]:
        return clip_scores(held_out, lambda p: encode_pictures(model, p), lambda t: encode_text(model, tokens(t)))

    schedule = Schedule(args.steps, args.learning_rate, evaluate_every=300)
    trained = train(
        model, loss_of, schedule, state, args.seed, lambda: scores(watched) | {"scale": model.logit_scale.exp().item()}
    )
    final = trained | scores(reported)
    print(f"{len(reported.captions)} held-out pictures in groups of {GROUP}: {json.dumps(final)}")
    save(model, tokenizer, args.patch_size, final | {"threads": args.threads}, args.out)


if __name__ == "__main__":
    main()
