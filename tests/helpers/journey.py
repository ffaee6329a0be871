"""Counts the functions of ours that run, in how many files: short journeys make code simple."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType

import flash

SOURCE = str(Path(flash.__file__).parent)


class Journey:
    """What has run: `functions` holds (file, function); expressions, such as comprehensions, belong to theirs."""

    def __init__(self) -> None:
        self.functions: set[tuple[str, str]] = set()

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """A profile function of Python's."""
        code = frame.f_code
        name = code.co_qualname if sys.version_info >= (3, 11) else code.co_name
        inner = name.endswith(("comp>", "genexpr>", "<lambda>", "<module>"))
        if event == "call" and code.co_filename.startswith(SOURCE) and not inner:
            self.functions.add((code.co_filename.removeprefix(SOURCE), name))

    def check(self, functions: int, files: int) -> None:
        """At most so many functions, in so many files."""
        shown = "\n".join(" ".join(function) for function in sorted(self.functions))
        assert len(self.functions) <= functions, f"{len(self.functions)} functions:\n{shown}"
        found = len({file for file, _ in self.functions})
        assert found <= files, f"{found} files:\n{shown}"


@contextmanager
def journey(module: ModuleType = sys) -> Iterator[Journey]:
    """Notes what runs in the block: in this thread, or with `threading` in the threads that start in it."""
    found = Journey()
    module.setprofile(found.note)
    try:
        yield found
    finally:
        module.setprofile(None)
