"""From shards to batches: contents (manifest), order (plan), reading (shards), batching (loader)."""
