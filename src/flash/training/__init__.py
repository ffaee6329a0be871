"""`flash.Trainer`, and what belongs to its fits: finetuning, progress, precision, the checkpoint of a stopped fit."""
