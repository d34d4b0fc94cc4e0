"""The orchestrator: recipes, the training loop, tracking, evaluation, reports and the command line."""
