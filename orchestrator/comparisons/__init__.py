"""Runs side by side: what differs between them, which one is better, at what cost, and whether to believe it."""
