"""The linear backbone: hashed n-grams, an exact solver, and corrections learned from out-of-fold scores."""
