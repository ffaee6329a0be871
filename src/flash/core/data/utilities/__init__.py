"""Lightning Flash's import paths."""
