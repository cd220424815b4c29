"""The configuration of filter.py: each rule is one line of a YAML, and a mark states the rule's name as its reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from regionedit.config import EncodersConfig

CLIP_RULES = ("min_text_image", "min_text_text", "max_text_text")
RULES = (
    "min_side", "max_aspect", "min_words", "max_words", "min_latin", "max_foreign", "boilerplate",
    "max_unsafe", "max_watermark", *CLIP_RULES, "decontaminate", "duplicates", "near_duplicates",
)  # fmt: skip
"""In the order of the printed counts; the last two consider only samples that no other rule has marked."""


@dataclass
class FilterConfig:
    """`python data_prep/filter.py --config FILE`: mark the samples that training shall leave out.

    A rule that is not set is off.

    Args:
        data: folder of shards; `{shard}.marks.jsonl` is written beside each, and filter.json with the counts.
        workers: number of processes.
        part: the share of the shards that this process measures, counted from 0.
        parts: number of shares that the shards are divided into, for several machines; each then only measures its
            share, and a last run without parts applies the rules.
        max_bad_fraction: limit for the share of samples that cannot be used at all (unpaired, unreadable, caption not
            UTF-8 or empty), and for the share of unreadable shards; above it the run ends with an error, after
            everything is written.
        min_side: smallest shorter side, in pixels.
        max_aspect: largest ratio of the longer side to the shorter.
        min_words: smallest number of words in the caption.
        max_words: largest number of words in the caption.
        min_latin: smallest share of the caption's letters that are Latin.
        max_foreign: largest share of the caption's words that are common in another European language and not English.
        boilerplate: regular expressions, upper and lower case alike; a caption in which one is found is marked.
        max_unsafe: largest value of `unsafe_column`; samples without it pass.
        unsafe_column: name of the value in the samples' .json.
        max_watermark: largest value of `watermark_column`; samples without it pass.
        watermark_column: name of the value in the samples' .json.
        min_text_image: smallest CLIP cosine of caption and picture; its scale depends on encoders.clip.
        min_text_text: smallest CLIP cosine of caption and target caption; below it, they describe different pictures.
        max_text_text: largest such cosine; above it, nothing would change. Samples without a target caption pass both.
        decontaminate: benchmarks whose pictures must not be trained on, as name -> folder. The name is a benchmark of
            evaluate.py; a folder under any other name is searched for picture files.
        decontaminate_distance: a picture counts as a test picture if its perceptual hash differs from that picture's
            hash in at most so many of the 63 bits.
        duplicates: keep only the first, in the order of keys, of pictures that are equal byte for byte.
        near_duplicates: keep only the first of pictures whose perceptual hashes differ in at most so many of the 63
            bits.
        encoders: the CLIP of the rules min_text_image, min_text_text and max_text_text; loaded only if one is set.
        device: device of that CLIP: cpu, cuda, cuda:1, mps; auto takes what is available.
        batch: number of pictures that CLIP encodes together.
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
        """Names of the values that the rules read from the samples' .json."""
        return self.unsafe_column, self.watermark_column

    @property
    def needs_clip(self) -> bool:
        return any(getattr(self, rule) is not None for rule in CLIP_RULES)

    def rules(self) -> dict[str, Any]:
        """The rules that are on, with all settings that decide their result."""
        values = asdict(self)
        rules = {name: values[name] for name in RULES if values[name] not in (None, False, [], {})}
        if self.max_unsafe is not None:
            rules["unsafe_column"] = self.unsafe_column
        if self.max_watermark is not None:
            rules["watermark_column"] = self.watermark_column
        if self.decontaminate:
            rules["decontaminate_distance"] = self.decontaminate_distance
        return rules
