"""Attacks in Wasserstein balls: who succeeds, with which violations, in what time and memory."""
