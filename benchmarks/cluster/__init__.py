"""What a run on Ray survives and costs. Each is a script of minutes: `python -m benchmarks.cluster.chaos` and so on."""
