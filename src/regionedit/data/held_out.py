"""Holds out validation samples of the training shards by a hash of each key, so that one folder is enough.

The choice depends on nothing but the key and the share: not on the seed, the shards, the ranks or the machine. A sample
that one run holds out is held out in every run with this share, also after the data have grown. A larger share holds
out the samples of a smaller one and more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from regionedit.data.manifest import Manifest

_SALT = b"held out\0"


def key_hashes(keys: Iterable[bytes], salt: bytes) -> np.ndarray:
    """uint64 [keys], uniformly distributed, a pure function of salt and key; other salts give independent hashes."""
    digests = b"".join(hashlib.sha256(salt + key).digest()[:8] for key in keys)
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def split(manifest: Manifest, share: float) -> tuple[Manifest, Manifest | None]:
    """The samples to train on, and those held out for validation; with a share of 0 all samples and None.

    Args:
        share: of the samples, `data.held_out`; about this share of any large set of keys.

    Raises:
        ValueError: a share outside [0, 1), or a share so small that it holds out no sample.
    """
    if not 0 <= share < 1:
        raise ValueError(f"data.held_out: {share:g}; give a share of the samples, from 0 to below 1")
    if share == 0:
        return manifest, None
    held_out = key_hashes(manifest.keys, _SALT) < np.uint64(int(share * 2.0**64))
    if not held_out.any():
        raise ValueError(
            f"data.held_out: {share:g} of {len(manifest)} samples holds out none; raise it, or set it to 0"
        )
    return manifest.only(~held_out, f"without {share!r}"), manifest.only(held_out, f"held out {share!r}")
