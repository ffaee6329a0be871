"""Everything after the (N, L) logits: calibration, thresholds, outputs, metrics and the table."""
