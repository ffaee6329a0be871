"""`flash.Trainer`, and what belongs to its fits: progress, precision, the checkpoint of a stopped fit."""
