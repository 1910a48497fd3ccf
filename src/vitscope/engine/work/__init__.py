"""Work that is cut into shards, and the executors and workers that carry it out."""
