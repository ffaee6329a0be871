"""The state that the endpoints share: the model, its queue, the limits, and the reload of the model."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from math import ceil
from threading import Thread
from typing import TypeVar

from flash.core.errors import FlashError
from flash.text.classification.serve import logs
from flash.text.classification.serve.batcher import Batcher, QueueFullError, TextCutError
from flash.text.classification.serve.metrics import Metrics
from flash.text.classification.serve.options import ServeOptions
from flash.text.classification.serve.problems import CLIENT_GONE, ProblemError, stopping
from flash.text.classification.serve.served_model import Scores, ServedModel

GAUGED = 1.0  # seconds between updates of the queue's metric
SHOWN_LABELS = 20  # in the log
LAST_BATCH = 5.0  # seconds that the current batch has to finish when the server stops
PATIENCE = 0.1  # seconds that a request waits before its connection is watched for a disconnect


Result = TypeVar("Result")


async def in_thread(function: Callable[[], Result]) -> Result:
    """Return the result of a function that runs in a daemon thread, which does not delay the interpreter's exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def tell(set_it: Callable[..., None], value: object) -> None:
        if not future.done():
            set_it(value)

    def run() -> None:
        told: tuple[Callable[..., None], object]
        try:
            told = (future.set_result, function())
        except BaseException as error:
            told = (future.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, *told)

    Thread(target=run, name="flash-load", daemon=True).start()
    return await future


class Service:
    """A model and its queue, in one event loop.

    Args:
        model: the first model.
        options: limits, keys and the like.

    Attributes:
        ready: whether the service accepts requests.
        dead: whether an error ended the model's thread.
        reloaded: called after a request reloaded the model; notifies the other workers.
        ended: called in the event loop after an error ended the model's thread; stops the server.
    """

    def __init__(self, model: ServedModel, options: ServeOptions) -> None:
        self.options, self.metrics = options, Metrics()
        self.batcher = Batcher(
            model,
            tokens=options.batch_tokens,
            most=options.max_waiting,
            delay=options.max_delay,
            on_batch=self._count,
            on_death=self._die,
        )
        self.metrics.serving(model)
        self.ready = self.dead = False
        self.reloaded: Callable[[], object] = lambda: None
        self.ended: Callable[[], object] = lambda: None
        self._reloading = asyncio.Lock()
        self._gauging: asyncio.Future[None]

    @property
    def model(self) -> ServedModel:
        """The model that answers new requests."""
        return self.batcher.model

    def start(self) -> None:
        """Start the queue in the running event loop."""
        self.batcher.start()
        self._gauging = asyncio.ensure_future(self._gauge())
        self.ready = True

    async def close(self) -> None:
        """Stop after the current batch, if it finishes soon; cancel the waiting requests."""
        self.ready = False
        self._gauging.cancel()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.batcher.close(), LAST_BATCH)
        logs.requests.flush()

    def _die(self, error: BaseException) -> None:
        self.ready, self.dead = False, True
        logs.event(logging.CRITICAL, "the thread of the model ended; so does this server", error=error)
        self.ended()

    def _count(self, texts: int, tokens: int, seconds: float, scores: Scores) -> None:
        try:
            self.metrics.batch(texts, tokens, seconds, scores)
        except Exception as error:  # a failure of the metrics must not fail requests
            logs.event(logging.ERROR, "metrics failed", error=error)

    async def _gauge(self) -> None:
        """Update this worker's gauges regularly, because any worker may get the request for the metrics."""
        while True:
            with suppress(OSError):
                self.metrics.gauge(self.batcher.waiting)
            await asyncio.sleep(GAUGED)

    async def reload(self) -> str:
        """Reload the model from its path and switch to it; return a message for the client.

        Raises:
            FlashError: the model has no path, or cannot be loaded from it; the old model stays.
        """
        async with self._reloading:
            old = self.model
            if old.path is None:
                raise FlashError(
                    "this model was given from memory, so there is nothing to load again; save it, and serve the file"
                )
            try:
                new = await in_thread(partial(ServedModel.load, old.path, self.options))
            except Exception as error:
                self.metrics.reload(done=False)
                logs.event(logging.ERROR, "reload refused", reason=str(error), model=old.name)
                if isinstance(error, FlashError | OSError | MemoryError):
                    reason = str(error).replace(
                        str(old.path), old.path.name
                    )  # clients see no paths; the log does
                    raise FlashError(
                        f"{reason}; the model that was loaded before goes on answering"
                    ) from error
                raise
            self.batcher.swap(new)
            self.metrics.serving(new)
            self.metrics.reload(done=True)
            gone, come = set(old.labels) - set(new.labels), set(new.labels) - set(old.labels)
            logs.event(
                logging.WARNING if gone or come else logging.INFO,
                "reload",
                model=new.name,
                labels=len(new.labels),
                labels_gone=sorted(gone)[:SHOWN_LABELS],
                labels_new=sorted(come)[:SHOWN_LABELS],
            )
            changed = "" if new.labels == old.labels else f", which were {len(old.labels)} others"
            return f"{new.name} was loaded again and answers now, with {len(new.labels)} labels{changed}"

    async def scores(
        self,
        texts: Sequence[str],
        param: str,
        gone: Callable[[], Awaitable[None]],
        *,
        whole: bool = False,
    ) -> Scores:
        """Compute the scores of a request's texts.

        Args:
            texts: N strings.
            param: name of the texts in the request's body, for messages; ends with `[]` for a list.
            gone: returns once the client has disconnected.
            whole: whether a text that would be truncated is an error.

        Raises:
            ProblemError: too many texts, a text is too long, the queue is full, the request timed out, or the model
                failed.
        """
        self.check(texts, param)
        try:
            job = self.batcher.submit(texts, whole=whole)
        except QueueFullError as full:
            raise ProblemError(
                503,
                "overloaded",
                f"{self.batcher.waiting:,} texts wait already, which is as much as may wait; come again in "
                f"{full.seconds} s",
                headers={"Retry-After": str(full.seconds)},
            ) from None
        answer = job.answer
        here = answer.done() or await self._wait(answer, gone)
        if not answer.done():
            self.batcher.give_up(job)
            if not here:
                raise ProblemError(CLIENT_GONE, "client_gone", "the client went away")
            raise ProblemError(
                504,
                "timeout",
                f"no answer within {self.options.request_timeout:g} s; send fewer texts at a time, or come again later",
            )
        if answer.cancelled():
            raise stopping()
        if isinstance(error := answer.exception(), TextCutError):
            which = place_of(param, error.index)
            raise ProblemError(
                422,
                "text_too_long",
                f"{which} is longer than the {error.most} tokens that the model reads, and truncate is false; shorten "
                "it, or leave truncate out",
                param=which,
            )
        if error is not None:
            if not self.dead:  # `_die` has already logged it
                logs.event(logging.ERROR, "prediction failed", error=error)
            raise ProblemError(500, "internal_error", "the model could not answer; the server's log says why")
        return answer.result()

    async def _wait(self, answer: "asyncio.Future[Scores]", gone: Callable[[], Awaitable[None]]) -> bool:
        """Wait for the result, the timeout or a disconnect; return False after a disconnect."""
        limit = self.options.request_timeout
        await asyncio.wait((answer,), timeout=min(PATIENCE, limit))
        if answer.done() or limit <= PATIENCE:
            return True
        watch = asyncio.ensure_future(gone())
        try:
            await asyncio.wait((answer, watch), timeout=limit - PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            here = not watch.done()
            watch.cancel()
        return here

    def check(self, texts: Sequence[str], param: str) -> None:
        """Check the limits of a request.

        Raises:
            ProblemError: too many texts, or a text is too long.
        """
        options = self.options
        if len(texts) > options.max_texts:
            raise too_many(len(texts), options.max_texts, param.removesuffix("[]"))
        for index, text in enumerate(texts):
            if len(text) > options.max_text_length:
                which = place_of(param, index)
                raise ProblemError(
                    422,
                    "text_too_long",
                    f"{which} has {len(text):,} characters; at most {options.max_text_length:,} are read, so shorten it "
                    "or divide it",
                    param=which,
                )


def place_of(param: str, index: int) -> str:
    """Return the name of a text in a request's body.

    >>> place_of("texts[]", 2), place_of("inputs", 0)
    ('texts[2]', 'inputs')
    """
    return f"{param[:-2]}[{index}]" if param.endswith("[]") else param


def too_many(count: int, most: int, param: str) -> ProblemError:
    """The error response to a request with too many texts."""
    return ProblemError(
        422,
        "too_many_texts",
        f"{param} has {count:,} texts; at most {most:,} are answered at a time, so send {ceil(count / most)} requests",
        param=param,
    )
