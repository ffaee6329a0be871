"""What every task shares: the trainer, finetuning strategies, downloads, errors."""
