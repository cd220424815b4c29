"""Operations are counted with the dtype in which a GPU multiplies."""

import torch
import torch.nn.functional as F

from benchmarks.step_cost import OperationsByDtype


def test_each_product_counts_for_its_dtype_forward_and_backward():
    wide, narrow = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7).bfloat16().requires_grad_()
    with OperationsByDtype() as counter:
        product = wide @ wide.T
        (product.bfloat16() @ product.bfloat16()[:, :3] @ torch.ones(3, 5).bfloat16() @ narrow).sum().backward()
    both = {torch.float32: 3 * 2 * 3 * 5 * 3}
    assert counter.by_dtype[torch.float32] == both[torch.float32]
    assert counter.by_dtype.total() == counter.get_total_flops()
    assert set(counter.by_dtype) == {torch.float32, torch.bfloat16}


def test_attention_in_bfloat16_is_not_counted_as_float32():
    q, k, v = (torch.empty(1, 2, 16, 8, device="meta", dtype=torch.bfloat16) for _ in range(3))
    allowed = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    with OperationsByDtype() as counter:
        F.scaled_dot_product_attention(q, k, v)
    assert dict(counter.by_dtype) == {torch.bfloat16: 2 * 2 * 2 * 16 * 16 * 8}
    assert torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed() == allowed
