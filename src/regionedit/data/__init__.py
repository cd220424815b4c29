"""Shards to batches: what there is (manifest), in which order (plan), how it is read (shards), how it is served."""
