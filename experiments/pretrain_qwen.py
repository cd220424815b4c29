"""Pre-trains the microworld's language model: a Qwen2 that writes the microworld's captions and instructions.

    python experiments/pretrain_qwen.py --out checkpoints/microworld/qwen --threads 1

It learns, from text alone, to answer the prompts of the describers and of the instruction writer, in JSON:

1. Caption and one or several instructions: the target caption.
2. Caption and operation: an instruction of that kind, the target caption, and the object to edit.
3. Caption and instruction in the writer's form: operation, target caption and object.
4. Instruction: its keyword.

Its chat template keeps only the last message: what earlier messages explain to a large model (the task, the format,
examples), this model knows from training. It sees every pair of colour and shape and every phrasing, as a public model
has seen all of English.

Shape letters: B chats, T tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import word_tokenizer
from lessons import (
    HELD_OUT_SEED,
    TRAIN_SEED,
    WRITER_OPERATIONS,
    Lesson,
    given_lesson,
    instruction_lesson,
    keyword_lesson,
    lessons,
    target_lesson,
    written_edit,
)
from pretraining import Schedule, arguments, begin, finished_folder, save_half, train
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as InTurn
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from regionedit.microworld import commands
from regionedit.microworld.edits import Edit
from regionedit.microworld.scene import COLORS, SHAPES

BATCH = 32
CONTEXT = 256
WIDTH, LAYERS = 128, 3
VOCABULARY = 640
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"  # Qwen2's special tokens
# Qwen2's pre-tokenizer: letters, digits and punctuation separate, each with the space before it
PIECES = r"""[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"""
TEMPLATE = (
    "{{ '<|im_start|>user\n' + messages[-1]['content'] + '<|im_end|>\n' }}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE as Qwen2's, with merges learned from lessons: any text survives encoding and decoding."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = InTurn(
        [Split(Regex(PIECES), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=5,
        special_tokens=[PAD, START, END],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (f"user\n{x.question}\nassistant\n{x.answer}" for x in lessons(TRAIN_SEED, 0, 4000))
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=CONTEXT,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def configuration(tokenizer: PreTrainedTokenizerFast) -> Qwen2Config:
    """Qwen2's layout (grouped queries, rotary positions, SwiGLU, tied embeddings) at toy size.

    The usual initialisation, with a spread of 0.02, suits widths of thousands. At this width, attention at first would
    hardly depend on the words: after 300 steps of 16 chats the loss on held-out target captions was .66, with this
    initialisation .43. Copying words from the question is what the model learns late.
    """
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=WIDTH**-0.5,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def prompt_of(tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )


def batch(tokenizer: PreTrainedTokenizerFast, chats: Sequence[Lesson]) -> tuple[Tensor, Tensor]:
    """(ids, labels) of whole chats, both [B, T]; only answers count in the loss."""
    questions = tokenizer([prompt_of(tokenizer, chat.question) for chat in chats]).input_ids
    answers = tokenizer([chat.answer + END for chat in chats]).input_ids
    length = max(len(q) + len(a) for q, a in zip(questions, answers, strict=True))
    ids_BT = torch.full((len(chats), length), tokenizer.pad_token_id)
    labels_BT = torch.full((len(chats), length), -100)
    for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        ids_BT[row, : len(question) + len(answer)] = torch.tensor(question + answer)
        labels_BT[row, len(question) : len(question) + len(answer)] = torch.tensor(answer)
    return ids_BT, labels_BT


@torch.inference_mode()
def answers(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: Sequence[str]) -> list[str]:
    """The model's greedy answers."""
    decoded = []
    for start in range(0, len(questions), 64):
        texts = [prompt_of(tokenizer, question) for question in questions[start : start + 64]]
        inputs = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
        ids_BT = model.generate(**inputs, max_new_tokens=CONTEXT // 2, do_sample=False)
        decoded += tokenizer.batch_decode(ids_BT[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return decoded


def scores(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int) -> dict[str, float]:
    """Accuracy on `count` held-out scenes of each task.

    target_exact: task 1, word for word. json_valid: task 2, an object with the four fields and the requested operation.
    instruction_right: in addition, the instruction is in the grammar, of that kind and about objects in the scene, and
    the target caption mentions the objects and the background that result. given_exact, keyword_exact: tasks 3 and 4.
    """

    def exact(kind: Callable[[int, int], Lesson], start: int) -> float:
        held_out = [kind(HELD_OUT_SEED, start + index) for index in range(count)]
        texts = answers(model, tokenizer, [lesson.question for lesson in held_out])
        return float(np.mean([text == lesson.answer for text, lesson in zip(texts, held_out, strict=True)]))

    requested = [
        (HELD_OUT_SEED, count + index, WRITER_OPERATIONS[index % len(WRITER_OPERATIONS)]) for index in range(count)
    ]
    edits = [written_edit(*place)[0] for place in requested]
    outputs = answers(model, tokenizer, [instruction_lesson(*place).question for place in requested])
    written = [read(text, operation) for text, (_, _, operation) in zip(outputs, requested, strict=True)]
    right = [row is not None and agrees(row, edit) for row, edit in zip(written, edits, strict=True)]
    return {
        "target_exact": exact(target_lesson, 0),
        "json_valid": float(np.mean([row is not None for row in written])),
        "instruction_right": float(np.mean(right)),
        "given_exact": exact(given_lesson, 2 * count),
        "keyword_exact": exact(keyword_lesson, 3 * count),
    }


def read(text: str, operation: str) -> dict[str, str] | None:
    """The answer to task 2 as a dict, or None if it does not have the requested form."""
    try:
        row = json.loads(text)
    except ValueError:
        return None
    fields = {"operation", "instruction", "target_caption", "object"}
    whole = isinstance(row, dict) and set(row) == fields and all(isinstance(v, str) and v for v in row.values())
    return row if whole and row["operation"] == operation else None


def agrees(row: dict[str, str], edit: Edit) -> bool:
    """Whether the instruction is possible in the scene of `edit` and the target caption mentions its result."""
    try:
        command = commands.parse(row["instruction"])
        before, after = commands.captions_of(edit.source, command)
    except ValueError:
        return False
    kind = "noop" if before == after else command.operation
    whole = all(words in row["target_caption"] for words in (" ".join(command.ground or ()), command.look or ""))
    return kind == row["operation"] and whole and objects(after) == objects(row["target_caption"])


def objects(caption: str) -> list[str]:
    """The coloured shapes that a caption mentions, sorted."""
    pairs = (f"{color} {shape}" for color in COLORS for shape in SHAPES)
    return sorted(pair for pair in pairs for _ in re.findall(rf"\ba (?:small |large )?{pair}\b", caption))


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, scores: dict[str, float], out: Path) -> None:
    """Write the folder that AutoModelForCausalLM and AutoTokenizer load, in half precision."""
    with finished_folder(out, scores) as folder:
        save_half(model, folder)
        word_tokenizer.save(tokenizer, folder)


def main() -> None:
    args, state = begin(arguments(__doc__, learning_rate=2e-3, steps=12000))
    tokenizer = build_tokenizer()
    model = Qwen2ForCausalLM(configuration(tokenizer))

    def loss_of(step: int, share: float) -> Tensor:
        ids_BT, labels_BT = batch(tokenizer, lessons(TRAIN_SEED + 2 * args.seed, step * BATCH, BATCH))
        return model(input_ids=ids_BT, labels=labels_BT).loss

    schedule = Schedule(args.steps, args.learning_rate, weight_decay=0.01, evaluate_every=900)
    final = train(model, loss_of, schedule, state, args.seed, lambda: scores(model, tokenizer, 60))
    final |= scores(model, tokenizer, 500)
    print(final)
    save(model, tokenizer, final | {"threads": args.threads}, args.out)


if __name__ == "__main__":
    main()
