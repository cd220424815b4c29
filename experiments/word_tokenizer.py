"""The tiny models' tokenizer: one token for each word of the grammar, in the format of the tokenizers library."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from regionedit.microworld.grammar import OPERATIONS, VOCABULARY

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<start>", "</s>"
PUNCTUATION = (",", ".", "!", "?", "-", "->", "'", ":", ";")


def words() -> list[str]:
    """All words and punctuation marks of captions, instructions and their canonical wordings."""
    return sorted({*VOCABULARY, *OPERATIONS}) + list(PUNCTUATION)


def build(vocabulary: Iterable[str], start: bool, max_length: int) -> PreTrainedTokenizerFast:
    """A lower-casing tokenizer; unknown words become <unk>.

    The padding token has id 0 and the end token the highest id of all, because CLIP's text encoder finds the end of a
    caption by the highest id.

    Args:
        start: put a start token first, as CLIP does and T5 does not.
        max_length: callers that request truncation cut longer texts to it.
    """
    order = [PAD, UNKNOWN, *([START] if start else []), *vocabulary, END]
    ids = {token: i for i, token in enumerate(order)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    specials = [(END, ids[END])] + ([(START, ids[START])] if start else [])
    template = f"{START} $A {END}" if start else f"$A {END}"
    tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=specials)
    names = {"pad_token": PAD, "unk_token": UNKNOWN, "eos_token": END} | ({"bos_token": START} if start else {})
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, padding_side="right", **names
    )


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json so that AutoTokenizer of transformers 4 and 5 reads them."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2) + "\n")
