"""A writer that runs vLLM in this process; needs `pip install "regionedit[vllm]"` and a GPU.

The system part of the prompt is the same for every caption, so that prefix caching computes it once. Structured output
forces the model to follow the schema. Each key has its own seed, so that reruns mostly agree; not exactly, because
vLLM's batches differ from run to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from instruction_schema import Edit, Target
from write_config import WriteConfig
from writer import CUT_OFF, Answer, Ask, Writer


class VllmWriter(Writer):
    """Calls `vllm.LLM.chat` with all requests of a shard at once; the engine makes its own batches."""

    @classmethod
    def identity(cls, config: WriteConfig) -> dict[str, Any]:
        return {"model": config.model, "revision": config.revision, "precision": config.local.precision}

    @classmethod
    def load(cls, config: WriteConfig) -> Self:
        try:
            import vllm
        except ImportError:
            raise ValueError(
                'writer: vllm is not installed; pip install "regionedit[vllm]", or choose writer openai or transformers'
            ) from None

        engine = vllm.LLM(
            model=config.model,
            revision=config.revision,
            dtype=config.local.precision,
            tensor_parallel_size=config.local.tensor_parallel,
            max_model_len=config.local.max_model_len,
            gpu_memory_utilization=config.local.memory,
            enable_prefix_caching=True,
            seed=config.seed,
        )
        return cls(config, engine)

    def __init__(self, config: WriteConfig, engine: Any):
        self._config, self._engine = config, engine
        self._schema = (Edit if config.source == "captions" else Target).model_json_schema()

    def write(self, asks: Sequence[Ask]) -> list[Answer]:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        sampling = self._config.sampling
        parameters = [
            SamplingParams(
                temperature=sampling.retry_temperature if ask.attempt else sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=ask.seed,
                structured_outputs=StructuredOutputsParams(json=self._schema),
            )
            for ask in asks
        ]
        made = self._engine.chat([ask.messages for ask in asks], parameters, use_tqdm=False)
        first = (output.outputs[0] for output in made)
        return [Answer(one.text, CUT_OFF if one.finish_reason == "length" else "") for one in first]
