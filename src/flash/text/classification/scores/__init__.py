"""From (N, L) logits on: calibration, thresholds, outputs, metrics and the table of scores."""
