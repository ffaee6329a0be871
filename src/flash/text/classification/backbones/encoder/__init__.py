"""Pretrained encoders of Hugging Face as backbones, and their exports."""
