"""Floating-point operations by the dtype of the tensors that are multiplied; GPUs multiply each at another rate."""

from __future__ import annotations

from collections import Counter

import torch
from torch.utils.flop_counter import FlopCounterMode


class OperationsByDtype(FlopCounterMode):
    """Inside, counts operations; a multiplication and an addition count as two.

    On the meta device, torch computes the attention of bfloat16 tensors in float32; inside, in bfloat16 as on a GPU.

    Attributes:
        by_dtype: dtype -> operations so far.
    """

    def __init__(self):
        super().__init__(display=False)
        self.by_dtype: Counter[torch.dtype] = Counter()

    def __enter__(self):
        self._upcast = not torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
        return super().__enter__()

    def __exit__(self, *raised):
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(not self._upcast)
        return super().__exit__(*raised)

    def _count_flops(self, func_packet, out, args, kwargs):
        before = self.get_total_flops()
        result = super()._count_flops(func_packet, out, args, kwargs)
        if counted := self.get_total_flops() - before:
            self.by_dtype[next(value.dtype for value in args if isinstance(value, torch.Tensor))] += counted
        return result
