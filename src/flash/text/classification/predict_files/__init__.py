"""Files and folders of any size: texts in, the same rows with labels and probabilities out."""
