"""Published tables and comparisons, each made again by one command."""
