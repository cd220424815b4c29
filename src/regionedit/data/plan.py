"""The order of the samples: a pure function of (seed, epoch), the same on every rank and in every worker.

A place is a sample's index in the order of an epoch; a position is a number of global batches.

Shape letters: G global batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


class EpochPlan:
    """One epoch: shards are permuted, samples are shuffled within blocks of shards and cut into global batches.

    Blocks are permuted when they are first needed, so jumping to any place costs at most one block.

    Args:
        sizes: samples of each shard.
        seed, epoch: seeds of the random order.
        global_batch: samples of one optimiser step over all ranks.
        block_shards: shards that are shuffled together; a reader has as many open at a time.

    Raises:
        ValueError: fewer samples than one global batch, or an argument below one.
    """

    def __init__(self, sizes: Sequence[int], seed: int, global_batch: int, block_shards: int, epoch: int):
        for name, value in (("global_batch", global_batch), ("block_shards", block_shards)):
            if value < 1:
                raise ValueError(f"data.{name}: {value}, but must be at least 1")
        sizes = np.asarray(sizes, np.int64)
        self.samples = int(sizes.sum())
        if self.samples < global_batch:
            raise ValueError(
                f"data.global_batch: one step takes {global_batch} samples, but the shards hold {self.samples}; "
                "lower it or pack more"
            )
        self.seed, self.epoch, self.global_batch = seed, epoch, global_batch
        self._first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._sizes = sizes
        order = np.random.default_rng([seed, epoch]).permutation(len(sizes))
        self._blocks = [order[i : i + block_shards] for i in range(0, len(order), block_shards)]
        self._ends = np.cumsum([sizes[block].sum() for block in self._blocks])
        self._shuffled: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        """Global batches of the epoch."""
        return self.samples // self.global_batch

    @property
    def dropped(self) -> int:
        """Samples that this epoch leaves out because they do not fill a global batch; each epoch drops others."""
        return self.samples % self.global_batch

    def places(self, position: int, rank: int = 0, ranks: int = 1) -> range:
        """A rank's places in the global batch at `position`: G / ranks of them, disjoint between ranks."""
        return range(position * self.global_batch + rank, (position + 1) * self.global_batch, ranks)

    def sample(self, place: int) -> int:
        """Number of the sample (in the manifest's order) at a place; the last places are the dropped samples."""
        block = int(np.searchsorted(self._ends, place, side="right"))
        return int(self._block(block)[place - (self._ends[block - 1] if block else 0)])

    def candidates(self, place: int) -> Iterator[int]:
        """The sample at a place, then its replacements in case it is bad: the next samples of the plan."""
        for step in range(self.samples):
            yield self.sample((place + step) % self.samples)

    def _block(self, block: int) -> np.ndarray:
        if block not in self._shuffled:
            if len(self._shuffled) == 2:  # a batch may straddle two blocks
                self._shuffled.pop(min(self._shuffled))
            samples = [np.arange(self._first[s], self._first[s] + self._sizes[s]) for s in self._blocks[block]]
            rng = np.random.default_rng([self.seed, self.epoch, block + 1])  # numpy ignores a trailing 0
            self._shuffled[block] = rng.permutation(np.concatenate(samples))
        return self._shuffled[block]


class EvenPlan:
    """A fixed choice of samples, evenly spread over all shards: the same in every validation.

    Args:
        wanted: number to use, 0 for all.
        ranks: every rank takes equally many, so up to ranks - 1 are left out.

    Raises:
        ValueError: fewer samples than ranks.
    """

    def __init__(self, samples: int, wanted: int, ranks: int = 1):
        self.samples = samples
        self.count = min(samples, wanted or samples) // ranks * ranks
        if not self.count:
            raise ValueError(
                f"data.validation: {samples} samples are too few for {ranks} ranks; pack more, or raise data.held_out"
            )

    def candidates(self, place: int) -> Iterator[int]:
        """The sample at a place, then its replacements in case it is bad."""
        first = place * self.samples // self.count
        for step in range(self.samples):
            yield (first + step) % self.samples
