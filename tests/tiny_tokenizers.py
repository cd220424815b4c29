"""Tiny tokenizers of the real classes, made from a handful of words: without training, and so always the same."""

import string

CONTEXT = 32

WORDS = (
    "a add and at background behind below blue bottom change circle colour cyan dark diamond from gray green heart in "
    "into is it large left light magenta make of on orange picture place plain purple put recolour red remove replace "
    "right ring small square star striped that the there to top triangle turn with yellow"
).split()


def word_tokenizer():
    """A fast tokenizer with one token a word, padded at the end, EOS last in the vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["<pad>", "<unk>", "<start>", *WORDS, "<end>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[("<start>", vocabulary["<start>"]), ("<end>", vocabulary["<end>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<start>",
        eos_token="<end>",
        model_max_length=CONTEXT,
    )


def clip_tokenizer():
    """A transformers CLIPTokenizer with byte pairs of `WORDS`, most of which are one token; always the same.

    The library's trainer is not used: it breaks ties by chance, and a test that passes by chance is none.
    """
    from transformers import CLIPTokenizer

    alone = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    order = {token: None for token in [*alone, *(character + "</w>" for character in alone)]}
    merges = {}
    for word in WORDS:
        made, *rest = [*word[:-1], word[-1] + "</w>"]
        for part in rest:
            merges[made, part] = None
            made += part
            order[made] = None
    vocabulary = [*order, "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer({token: number for number, token in enumerate(vocabulary)}, list(merges))
    tokenizer.model_max_length = CONTEXT
    return tokenizer
