"""The linear backbone: hashed n-grams, an exact solver, and what it learns from rows that it has not seen."""
