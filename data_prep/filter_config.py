"""The configuration of filter.py: each rule is one line of a YAML, and its name is the reason that a mark gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from regionedit.config import EncodersConfig

CAPTION_RULES = ("min_words", "max_words", "min_latin", "max_foreign", "boilerplate")
CLIP_RULES = ("min_text_image", "min_text_text", "max_text_text")
RULES = (
    "min_side", "max_aspect", *CAPTION_RULES, "max_unsafe", "max_watermark", *CLIP_RULES,
    "decontaminate", "duplicates", "near_duplicates",
)  # fmt: skip
"""In the order in which they are told; the last two look only at samples that no other rule has marked."""


@dataclass
class FilterConfig:
    """`python data_prep/filter.py --config FILE`: mark the samples that training shall leave out.

    A rule that is not set is off.

    Args:
        data: folder of shards; `{shard}.marks.jsonl` is written beside each, and filter.json with the counts.
        workers: processes.
        part: which share of the shards this process measures, from 0.
        parts: into how many shares the shards are divided, for several machines; each then only measures its share, and
            a last run without parts decides.
        max_bad_fraction: share of samples that cannot be used at all (unpaired, unreadable, caption not UTF-8 or
            empty), and of shards that cannot be read, above which the run ends with an error, after everything is
            written.
        min_side: fewest pixels of the shorter side.
        max_aspect: largest ratio of the longer side to the shorter.
        min_words: of the caption.
        max_words: of the caption.
        min_latin: smallest share of the caption's letters that are Latin.
        max_foreign: largest share of the caption's words that are common in another European language and not English.
        boilerplate: regular expressions; a caption in which one is found, upper or lower case, is no caption.
        max_unsafe: largest value of `unsafe_column`; samples without it pass.
        unsafe_column: in the samples' .json.
        max_watermark: largest value of `watermark_column`; samples without it pass.
        watermark_column: in the samples' .json.
        min_text_image: smallest CLIP cosine of caption and picture. Its scale is that of encoders.clip.
        min_text_text: smallest CLIP cosine of the caption and the target caption; below it, they speak of two pictures.
        max_text_text: largest; above it, nothing is to be changed. Samples without a target caption pass both.
        decontaminate: benchmarks whose pictures must not be trained on: a benchmark of evaluate.py, or any other name,
            -> its folder. A folder of any other name is searched for pictures.
        decontaminate_distance: bits of the perceptual hash, of 63, up to which a picture is taken for a test picture.
        duplicates: of pictures that are equal byte for byte only the first, in the order of keys, stays.
        near_duplicates: bits of the perceptual hash, of 63, up to which pictures are taken for copies of each other;
            the first stays.
        encoders: the CLIP of the three rules above; loaded only where one of them is set.
        device: of that CLIP: cpu, cuda, cuda:1, mps; auto takes what is there.
        batch: pictures that CLIP sees together.
    """

    data: str = "data/crawl"
    workers: int = 2
    part: int = 0
    parts: int = 1
    max_bad_fraction: float = 0.01
    min_side: int | None = None
    max_aspect: float | None = None
    min_words: int | None = None
    max_words: int | None = None
    min_latin: float | None = None
    max_foreign: float | None = None
    boilerplate: list[str] = field(default_factory=list)
    max_unsafe: float | None = None
    unsafe_column: str = "punsafe"
    max_watermark: float | None = None
    watermark_column: str = "pwatermark"
    min_text_image: float | None = None
    min_text_text: float | None = None
    max_text_text: float | None = None
    decontaminate: dict[str, str] = field(default_factory=dict)
    decontaminate_distance: int = 6
    duplicates: bool = False
    near_duplicates: int | None = None
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    device: str = "auto"
    batch: int = 64

    @property
    def columns(self) -> tuple[str, str]:
        """Of the samples' .json."""
        return self.unsafe_column, self.watermark_column

    @property
    def needs_clip(self) -> bool:
        return any(getattr(self, rule) is not None for rule in CLIP_RULES)

    def rules(self) -> dict[str, Any]:
        """The rules that are on, with what decides their outcome."""
        values = asdict(self)
        rules = {name: values[name] for name in RULES if values[name] not in (None, False, [], {})}
        if self.max_unsafe is not None:
            rules["unsafe_column"] = self.unsafe_column
        if self.max_watermark is not None:
            rules["watermark_column"] = self.watermark_column
        if self.decontaminate:
            rules["decontaminate_distance"] = self.decontaminate_distance
        return rules
