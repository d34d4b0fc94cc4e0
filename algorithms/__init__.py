"""The algorithms: pure torch. No Ray, no MLflow, no files, no printing, no global random state."""
