"""Workers run the algorithms on shards of data. Plain classes; only `pool` and its like know Ray."""
