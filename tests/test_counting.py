"""What the benchmarks count and read: peak memory, operations, medians, the scores of a race, the page of results."""

import json

import torch
import torch.nn.functional as F

from benchmarks import harness
from benchmarks.harness import medians
from benchmarks.peak_memory import PeakMemory, flash_attention
from benchmarks.race import scores
from benchmarks.step_cost import OperationsByDtype


def test_peak_memory_counts_each_storage_while_it_is_referenced():
    given = torch.randn(1000, requires_grad=True)
    with PeakMemory() as memory:
        first = given.exp()  # keeps its result for the backward pass
        assert memory.now == memory.peak == 4000
        second = first.view(10, 100)  # the same storage
        del first
        assert memory.now == 4000
        third = second.detach() * 2
        assert memory.now == memory.peak == 8000
        del third
        assert (memory.now, memory.peak) == (4000, 8000)
        second.sum().backward()
        del second
    assert memory.now == 4000, "the gradient is left"


def test_attention_on_the_meta_device_keeps_no_weights():
    """Only queries, keys, values and the result are saved, not 64 x 64 weights for each head."""
    q, k, v = (torch.empty(1, 2, 64, 8, device="meta", requires_grad=True) for _ in range(3))
    kept = []
    with flash_attention(), torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        result = F.scaled_dot_product_attention(q, k, v)
    assert result.shape == q.shape and max(t.numel() for t in kept) == q.numel()
    assert F.scaled_dot_product_attention.__module__ != "benchmarks.peak_memory"


def test_measurements_take_turns_and_each_has_its_own_median():
    order, values = [], iter([5.0, 1.0, 9.0, 2.0, 1.0, 30.0])

    def measure(name):
        order.append(name)
        return next(values)

    assert medians(lambda: measure("a"), lambda: measure("b"), rounds=3) == [5.0, 2.0]
    assert order == ["a", "b"] * 3


def test_a_race_is_won_when_one_validation_reaches_both_scores(tmp_path):
    path = tmp_path / "metrics.csv"
    assert scores(path) == (0.0, 0.0, False)
    rows = ["step,name,value", "50,validation/iou/local,0.6", "50,validation/pointing/local,0.7"]
    path.write_text("\n".join([*rows, "100,validation/iou/local,0.4", "100,validation/pointing/local,0.9"]) + "\n")
    assert scores(path) == (0.6, 0.9, False)
    path.write_text(path.read_text() + "150,validation/iou/local,0.5\n150,validation/pointing/local,0.8\n150,valid")
    assert scores(path) == (0.6, 0.9, True)


def test_a_result_is_recorded_in_numbers_and_on_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results.json")
    assert harness.record("one", 1.0, 4.0, "s", "a machine") == 0.25
    assert harness.record("two", 3.0, 1.0, "s") == 3.0
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept["one"] == {"ratio": 0.25, "ours": 1.0, "baseline": 4.0, "unit": "s", "machine": "a machine"}
    page = (tmp_path / "RESULTS.md").read_text()
    assert "| one | 1 | 4 | s | 0.25 | a machine |" in page and "| two | 3 | 1 | s | 3 |" in page


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
