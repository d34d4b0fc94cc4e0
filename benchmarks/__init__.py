"""Benchmarks: ratios measured within one run, since single times on a shared machine mean little."""
