"""How many of our functions, in how many files, a request crosses (decision 033)."""

import threading
import time
from collections.abc import Callable
from typing import Any

from journey import journey


def test_a_request(serving: Callable[..., Any], ask: Callable[..., Any]) -> None:
    with journey(threading) as found, serving() as url:
        for _ in range(2):
            assert ask(f"{url}/v1/classify", {"texts": ["banana"]}).status == 200
        time.sleep(0.1)  # what follows an answer belongs to its request
        found.functions.clear()
        assert ask(f"{url}/v1/classify", {"texts": ["banana"]}).status == 200
        time.sleep(0.1)
        found.functions = set(found.functions)  # the end of the server is another journey
        found.check(functions=55, files=15)  # with the gauges, which are read now and then
