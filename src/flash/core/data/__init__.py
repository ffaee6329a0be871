"""Fetching data."""

from flash.core.data.utils import download_data

__all__ = ["download_data"]
