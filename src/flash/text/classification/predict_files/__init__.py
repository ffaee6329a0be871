"""Predict files and folders of any size: the output has the input's rows with labels and probabilities."""
