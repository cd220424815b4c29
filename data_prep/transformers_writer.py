"""A writer that runs a language model with transformers in this process, for small machines and small models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from write_config import WriteConfig
from writer import CUT_OFF, Answer, Ask, Writer

from regionedit.device import pick_device
from regionedit.provenance import identify

if TYPE_CHECKING:
    import torch


class TransformersWriter(Writer):
    """Takes any `AutoModelForCausalLM` folder or hub name; uses the tokenizer's chat template if there is one."""

    @classmethod
    def identity(cls, config: WriteConfig) -> dict[str, Any]:
        known = identify(config.model, config.revision)
        pinned = known.get("sha256") or known.get("commit") or config.revision
        name = config.model.rstrip("/").rpartition("/")[2]  # without its path, which may change
        return {"model": name, "revision": pinned, "precision": config.local.precision}

    @classmethod
    def load(cls, config: WriteConfig) -> Self:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if config.local.batch < 1:
            raise ValueError(f"local.batch: {config.local.batch}; at least 1")
        pinned = {"revision": config.revision, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(config.model, padding_side="left", **pinned)
            model = AutoModelForCausalLM.from_pretrained(
                config.model, use_safetensors=True, dtype=config.local.precision, **pinned
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"model: {config.model} cannot be loaded: {' '.join(str(error).split())[:300]}") from None
        return cls(config, tokenizer, model.eval().to(pick_device(config.local.device)))

    def __init__(self, config: WriteConfig, tokenizer: Any, model: Any):
        self._config, self._tokenizer, self._model = config, tokenizer, model
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token

    def write(self, asks: Sequence[Ask]) -> list[Answer]:
        texts = [self._text(ask) for ask in asks]
        order = sorted(range(len(asks)), key=lambda place: len(texts[place]))  # similar lengths need little padding
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), self._config.local.batch):
            places = order[start : start + self._config.local.batch]
            made = self._generate([texts[p] for p in places], [asks[p] for p in places])
            answers.update(zip(places, made, strict=True))
        return [answers[place] for place in range(len(asks))]

    def _text(self, ask: Ask) -> str:
        if self._tokenizer.chat_template:
            return self._tokenizer.apply_chat_template(ask.messages, tokenize=False, add_generation_prompt=True)
        return "\n\n".join(message["content"] for message in ask.messages) + "\n"

    def _generate(self, texts: list[str], asks: list[Ask]) -> list[Answer]:
        import torch
        from transformers import LogitsProcessorList

        sampling = self._config.sampling
        temperature = sampling.retry_temperature if asks[0].attempt else sampling.temperature
        inputs = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = inputs.to(self._model.device)
        processors = LogitsProcessorList()
        if temperature > 0:
            processors = _sampling(temperature, sampling.top_p, [ask.seed for ask in asks], self._model.device)
        with torch.inference_mode():
            made = self._model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                logits_processor=processors,
                do_sample=False,
                max_new_tokens=sampling.max_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        new = made[:, inputs["input_ids"].shape[1] :]
        ends = self._model.generation_config.eos_token_id
        ends = torch.tensor(ends if isinstance(ends, list) else [ends], device=new.device)
        ended = torch.isin(new, ends).any(1) if new.shape[1] == sampling.max_tokens else [True] * len(asks)
        texts = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        return [Answer(text, "" if end else CUT_OFF) for text, end in zip(texts, ended, strict=True)]


def _sampling(temperature: float, top_p: float, seeds: list[int], device: torch.device) -> Any:
    """Logits processors that turn greedy search into sampling, with one seed for each row, independent of the batch.

    The argmax of logits plus Gumbel noise is a sample from their softmax.
    """
    import torch
    from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

    dice = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    class Gumbel(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            uniform = torch.stack([torch.rand(scores.shape[1], generator=die, device=scores.device) for die in dice])
            return scores.float() - torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))

    return LogitsProcessorList([TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p), Gumbel()])
