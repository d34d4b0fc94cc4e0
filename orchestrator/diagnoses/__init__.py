"""What a diagnosis is made of: its settings, the shards that it has finished, the figures and the page it ends in."""
