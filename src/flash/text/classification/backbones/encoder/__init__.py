"""Pretrained encoders of Hugging Face as a backbone, and their exports."""
