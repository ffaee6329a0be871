"""`flash text_classification`: answers `--help` at once and delegates the rest to `training`, which imports torch."""

import sys

from flash.cli.help import SOURCES, asked_source, help_text
from flash.core.launch import rank

__all__ = ["SOURCES", "run"]


def run(argv: list[str]) -> int:
    """Print the requested help, or train; returns the exit code."""
    source = asked_source(argv)
    if source is not None:
        print(help_text(source))
        return 0
    if "flash.cli.training" not in sys.modules and rank() == 0:
        sys.stderr.write("flash: loading PyTorch and Lightning, which takes some seconds\n")
        sys.stderr.flush()
    from flash.cli.training import train

    return train(argv)
