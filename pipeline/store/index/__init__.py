"""Which rows a fingerprint's shards hold, found without reading the shards again."""
