"""Metrics on embeddings of pictures and texts, with fake networks whose embeddings are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from regionedit.evaluation import METRICS
from regionedit.evaluation.metrics import CaseMetric, Settings
from regionedit.evaluation.outcomes import Outcome
from tests.metric_cases import NAN, case, flat, mask, value


class Invented:
    """A fake network with a fixed embedding for each colour and each text."""

    def __init__(self, colours: dict[int, tuple], texts: dict[str, tuple]):
        self.colours, self.words = colours, texts
        self.seen: list[Image.Image] = []

    def pictures(self, pictures) -> torch.Tensor:
        self.seen += pictures
        return torch.tensor([self.colours[picture.getpixel((0, 0))[0]] for picture in pictures], dtype=torch.float32)

    def texts(self, texts) -> torch.Tensor:
        return torch.tensor([self.words[text] for text in texts], dtype=torch.float32)

    def unit_pictures(self, pictures) -> torch.Tensor:
        return F.normalize(self.pictures(pictures), dim=-1)

    def unit_texts(self, texts) -> torch.Tensor:
        return F.normalize(self.texts(texts), dim=-1)


def with_network(name: str, network) -> CaseMetric:
    return METRICS[name].metric(Settings(network))


def test_similarities_are_cosines_with_the_reference_in_the_name():
    network = Invented({10: (3, 4), 20: (1, 0), 30: (0, 2)}, {})
    outcome = Outcome(case(flat(20), flat(30)), flat(10))
    for name in ("clip_image", "dino", "dinov2"):
        assert value(with_network(name, network), outcome) == pytest.approx(0.8, abs=1e-6)
        assert value(with_network(f"{name}_source", network), outcome) == pytest.approx(0.6, abs=1e-6)


def test_text_similarities_are_cosines_with_caption_or_instruction():
    network = Invented({10: (3, 4)}, {"a cat": (2, 0), "no cat": (0, 1), "make it a cat": (0, 5), "away": (-1, 0)})
    outcome = Outcome(case(flat(20), captions=("no cat", "a cat"), instruction="make it a cat"), flat(10))
    assert value(with_network("clip_text", network), outcome) == pytest.approx(0.6, abs=1e-6)
    assert value(with_network("clip_instruction", network), outcome) == pytest.approx(0.8, abs=1e-6)
    assert value(with_network("clip_whole", network), outcome) == pytest.approx(60, abs=1e-4)
    away = Outcome(case(flat(20), captions=("no cat", "away")), flat(10))
    assert value(with_network("clip_text", network), away) == pytest.approx(-0.6, abs=1e-6)
    assert value(with_network("clip_whole", network), away) == 0


def test_the_edited_part_is_the_picture_inside_the_mask_with_its_frame():
    network = Invented({10: (3, 4)}, {"a cat": (1, 0)})
    made = case(flat(20), truth_mask=mask((2, 3, 5, 6)), captions=("no cat", "a cat"))
    assert value(with_network("clip_edited", network), Outcome(made, flat(10))) == pytest.approx(60, abs=1e-4)
    expected = np.zeros((8, 8, 3), np.uint8)
    expected[3:6, 2:5] = expected[[0, -1]] = 10
    expected[:, [0, -1]] = 10
    assert np.array_equal(np.asarray(network.seen[0]), expected)


def test_direction_of_normalised_and_of_raw_embeddings_are_two_numbers():
    """Unit vectors: (0, 1) - (1, 0) and (0, 1) - (1, 0) give 1. Raw: (-1, 10) and (-2, 2) give 22 / sqrt(101 * 8)."""
    network = Invented({10: (0, 10), 20: (1, 0)}, {"source": (2, 0), "target": (0, 2)})
    outcome = Outcome(case(flat(20), captions=("source", "target")), flat(10))
    assert value(with_network("clip_direction", network), outcome) == pytest.approx(1, abs=1e-6)
    assert value(with_network("clip_direction_raw", network), outcome) == pytest.approx(22 / math.sqrt(808), abs=1e-6)


@pytest.mark.parametrize("captions", [("a cat", " A Cat "), ("a cat", "a  cat"), ("a cat", ""), None])
def test_captions_that_do_not_differ_have_no_direction(captions):
    network = Invented({10: (0, 1), 20: (1, 0)}, dict.fromkeys(["a cat", " A Cat ", "a  cat", "a dog"], (0.3, 0.4)))
    for metric in (with_network("clip_direction", network), with_network("clip_direction_raw", network)):
        assert math.isnan(value(metric, Outcome(case(flat(20), captions=captions), flat(10))))


def test_a_rank_counts_the_instructions_that_fit_better():
    """Among the cosines of each picture with (up, right, up-right), its own instruction is first, third and second."""
    network = Invented({10: (0, 1), 20: (0, 1), 30: (1, 0.1)}, {"up": (0, 1), "right": (1, 0), "both": (1, 1)})
    cases = [("up", 10), ("right", 20), ("both", 30), ("up", 30)]
    outcomes = [Outcome(case(flat(0), instruction=text), flat(colour)) for text, colour in cases]
    assert value(with_network("clip_instruction_rank", network), *outcomes) == [1, 3, 2, 3]


def test_a_rank_is_among_the_next_hundred_distinct_instructions_whatever_the_batches_and_failures():
    rng = np.random.default_rng(0)
    words = {f"Do  thing {i}": tuple(rng.normal(size=4)) for i in range(130)}
    words |= {text.lower().replace("  ", " "): embedding for text, embedding in words.items()}
    network = Invented({level: tuple(rng.normal(size=4)) for level in range(140)}, words)
    instructions = [f"Do  thing {i}" for i in range(130)] + [f"do thing {i}" for i in range(10)]
    outcomes = [Outcome(case(flat(0, 1), instruction=text), flat(i, 1)) for i, text in enumerate(instructions)]
    outcomes[7] = replace(outcomes[7], picture=None, failed="no luck")

    def unit(vector):
        return np.asarray(vector) / np.linalg.norm(vector)

    expected = []
    for level, text in enumerate(instructions):
        own = int(text.split()[-1])
        cosines = [unit(words[f"Do  thing {(own + k) % 130}"]) @ unit(network.colours[level]) for k in range(100)]
        expected.append(NAN if level == 7 else 1 + sum(c > cosines[0] for c in cosines[1:]))
    for size in (1, 32, 140):
        metric = with_network("clip_instruction_rank", network)
        for start in range(0, 140, size):
            metric.update(outcomes[start : start + size])
        assert metric.values().tolist() == pytest.approx(expected, nan_ok=True)
    assert len(set(expected)) > 30


def test_one_instruction_alone_has_no_rank():
    network = Invented({10: (0, 1)}, {"up": (0, 1)})
    outcome = Outcome(case(flat(0), instruction="up"), flat(10))
    ranks = value(with_network("clip_instruction_rank", network), outcome, outcome)
    assert all(map(math.isnan, ranks))


def test_pick_score_uses_the_target_caption():
    class Scores:
        def scores(self, pictures, prompts):
            assert [picture.getpixel((0, 0))[0] for picture in pictures] == [10, 30]
            assert prompts == ["a cat", "a dog"]
            return torch.tensor([21.5, 19.0])

    cases = [("a cat", 10), ("a dog", 30)]
    outcomes = [Outcome(case(flat(20), captions=("x", target)), flat(level)) for target, level in cases]
    assert value(with_network("pick_score", Scores()), *outcomes) == [21.5, 19.0]
