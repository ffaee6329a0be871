"""Dynamic batching: waiting texts are computed together, up to a token budget, in one thread.

When the model is idle, a request starts at once. While a batch is computed, requests queue, and the next batch takes
texts from each request round-robin, so that a request of a thousand texts does not delay requests of one text.
This module is independent of HTTP.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

from flash.text.classification.serve.served_model import Scores, ServedModel

TURN = 16  # texts taken from one request per round, while other requests wait
ALWAYS = 64  # texts that may always wait, whatever the estimated delay: one for each client of a small team
LONGEST = 60  # upper limit of Retry-After, in seconds
MEMORY = 0.8  # weight of the previous estimate in the moving average of tokens per second


class QueueFullError(Exception):
    """The queue is full.

    Args:
        seconds: estimated time until the request can be repeated.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"come again in {seconds} s")
        self.seconds = seconds


class TextCutError(Exception):
    """A text exceeds the model's maximum length, and its request forbids truncation.

    Args:
        index: index of the text in its request.
        most: the model's maximum length in tokens.
    """

    def __init__(self, index: int, most: int | None) -> None:
        super().__init__(f"text {index} is longer than {most} tokens")
        self.index, self.most = index, most


class Job:
    """The texts of one request and the state of their computation.

    Attributes:
        answer: future that resolves to the scores of all texts.
    """

    def __init__(
        self, model: ServedModel, texts: Sequence[str], whole: bool, answer: "asyncio.Future[Scores]"
    ) -> None:
        self.model, self.texts, self.whole, self.answer = model, texts, whole, answer
        self.costs = model.costs(texts)
        self.scores: Scores | None = None  # filled in batch by batch, if one batch does not hold all texts
        self.taken = 0  # texts that are computed or in the current batch


class Batcher:
    """Queue of requests, and the thread that computes them in batches.

    Args:
        model: the model that computes the scores.
        tokens: token budget of a batch; a batch has at least one text, however long.
        most: maximum number of waiting texts.
        delay: maximum estimated delay of the queue in seconds, from the speed of earlier batches; `ALWAYS` texts may
            wait regardless.
        on_batch: called in the thread after each batch with its number of texts, tokens, seconds, and its scores.
        on_death: called in the event loop with an error that ended the thread, such as a panic in a library's compiled
            code, which is not an `Exception`. All waiting and later requests then fail with that error.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        tokens: int,
        most: int,
        delay: float = float("inf"),
        on_batch: Callable[[int, int, float, Scores], None] = lambda texts, tokens, seconds, scores: None,
        on_death: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.model, self._budget, self._most, self._on_batch = model, tokens, most, on_batch
        self._delay, self._on_death = delay, on_death
        self._death: BaseException | None = None
        self._waiting: deque[Job] = deque()
        self._at_hand: list[Job] = []
        self._texts = self._tokens = 0  # waiting
        self._rate = float("inf")  # tokens per second, moving average
        self._wake = threading.Condition()
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop  # set by start()
        self._ended: asyncio.Future[None]
        self._thread = threading.Thread(target=self._run, name="flash-batches", daemon=True)

    @property
    def waiting(self) -> int:
        """Number of waiting texts."""
        return self._texts

    def start(self) -> None:
        """Start the thread; must be called in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._thread.start()

    async def close(self) -> None:
        """Stop after the current batch; cancel all requests that are not answered yet."""
        with self._wake:
            self._stopped = True
            left = self._empty()
            self._wake.notify()
        for job in left:
            job.answer.cancel()
        # joining in a pool thread would make the interpreter wait at exit, however long the batch takes
        await asyncio.shield(self._ended)

    def _empty(self) -> list[Job]:
        """Remove and return all requests; the caller holds the lock."""
        left = [*self._waiting, *self._at_hand]
        self._texts = self._tokens = 0
        self._waiting.clear()
        return left

    def swap(self, model: ServedModel) -> None:
        """Use another model from the next request on; a request that was already submitted keeps its model."""
        self.model = model

    def submit(self, texts: Sequence[str], *, whole: bool = False) -> Job:
        """Add texts to the queue; must be called in the event loop.

        Args:
            texts: N strings.
            whole: whether a text that would be truncated fails the request with `TextCutError`.

        Raises:
            QueueFullError: the queue is full.
        """
        job = Job(self.model, texts, whole, self._loop.create_future())
        if not texts:
            job.answer.set_result(Scores.empty(self.model, 0))
            return job
        if self._death is not None:
            self._fail(job, self._death)
            return job
        with self._wake:
            late = self._texts + len(texts) > ALWAYS and self._tokens / self._rate > self._delay
            if late or self._texts + len(texts) > self._most:
                raise QueueFullError(int(min(max(self._tokens / self._rate, 1), LONGEST)))
            self._texts += len(texts)
            self._tokens += sum(job.costs)
            self._waiting.append(job)
            self._wake.notify()
        return job

    def give_up(self, job: Job) -> None:
        """Remove a request from the queue; scores that were already computed are discarded."""
        if not job.answer.done():
            self._take_out(job)
            job.answer.cancel()

    def _take_out(self, job: Job) -> None:
        with self._wake:
            if job in self._waiting:
                self._waiting.remove(job)
                self._texts -= len(job.texts) - job.taken
                self._tokens -= sum(job.costs[job.taken :])

    # ---- in the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while parts := self._next():
                self._compute(parts)
        except BaseException as error:
            self._tell(self._die, error)
        self._tell(self._end)

    def _next(self) -> list[tuple[Job, int, int]]:
        """Wait for requests and return the slices of the next batch, all of one model; empty once stopped."""
        with self._wake:
            while not self._waiting and not self._stopped:
                self._wake.wait()
            if self._stopped:
                return []
            parts: dict[int, tuple[Job, int, int]] = {}
            tokens, model = 0, self._waiting[0].model
            while self._waiting and self._waiting[0].model is model:
                job = self._waiting.popleft()
                begin, end = job.taken, job.taken
                turn = len(job.texts) if not self._waiting else min(begin + TURN, len(job.texts))
                while end < turn and (not tokens or tokens + job.costs[end] <= self._budget):
                    tokens += job.costs[end]
                    end += 1
                if end > begin:
                    first = parts[id(job)][1] if id(job) in parts else begin
                    parts[id(job)] = (job, first, end)
                    job.taken = end
                    self._texts -= end - begin
                    self._tokens -= sum(job.costs[begin:end])
                full = end < turn
                if end < len(job.texts):  # back of the queue, or the front if the budget ended its turn early
                    (self._waiting.appendleft if full else self._waiting.append)(job)
                if full:
                    break
            self._at_hand = [job for job, _, _ in parts.values()]
            return list(parts.values())

    def _compute(self, parts: list[tuple[Job, int, int]]) -> None:
        parts = [part for part in parts if not part[0].whole or self._fits(*part)]
        if not parts:
            return
        model = parts[0][0].model
        texts = [text for job, begin, end in parts for text in job.texts[begin:end]]
        began = perf_counter()
        try:
            scores = model.scores(texts)
        except Exception as error:  # fail only the request that caused it: compute the requests one by one
            if len(parts) > 1:
                for part_of_one in parts:
                    self._compute([part_of_one])
            else:
                self._take_out(parts[0][0])
                self._tell(self._fail, parts[0][0], error)
            return
        seconds = max(perf_counter() - began, 1e-6)
        tokens = sum(cost for job, begin, end in parts for cost in job.costs[begin:end])
        known = self._rate if self._rate < float("inf") else tokens / seconds
        self._rate = MEMORY * known + (1 - MEMORY) * tokens / seconds
        self._on_batch(len(texts), tokens, seconds, scores)
        done: list[tuple[Job, Scores]] = []
        start = 0
        for job, begin, end in parts:
            part = scores.part(start, start + end - begin)
            start += end - begin
            if end - begin == len(job.texts):
                done.append((job, part))
                continue
            if job.scores is None:
                job.scores = Scores.empty(model, len(job.texts))
            job.scores.put(begin, part)
            if end == len(job.texts):
                done.append((job, job.scores))
        if done:
            self._tell(self._deliver, done)

    def _fits(self, job: Job, begin: int, end: int) -> bool:
        """Return whether the model reads these texts whole; otherwise fail their request."""
        try:
            cut = job.model.cut(job.texts[begin:end])
            error: Exception | None = TextCutError(begin + cut[0], job.model.max_length) if cut else None
        except Exception as found:
            error = found
        if error is not None:
            self._take_out(job)
            self._tell(self._fail, job, error)
        return error is None

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _die(self, error: BaseException) -> None:
        self._death = error
        with self._wake:
            left = self._empty()
        self._on_death(error)
        for job in left:
            self._fail(job, error)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    @staticmethod
    def _deliver(done: list[tuple[Job, Scores]]) -> None:
        for job, scores in done:
            if not job.answer.done():
                job.answer.set_result(scores)

    @staticmethod
    def _fail(job: Job, error: BaseException) -> None:
        if not job.answer.done():
            job.answer.set_exception(error)
