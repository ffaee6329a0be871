"""Texts that wait are answered together: micro-batches by a budget of tokens, computed in one thread.

A request waits for no one when nothing is computed: the thread takes what is there and begins. While it computes,
requests gather, and the next batch takes from each in turn, so that one of a thousand texts does not hold up
those of one. Nothing here knows of HTTP.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

from flash.text.classification.serve.served_model import Scores, ServedModel

TURN = 16  # texts of one request at a time, while others wait
LEAST_RATE = 1.0  # texts a second, for guesses of how long a queue takes


class QueueFullError(Exception):
    """More texts wait already than may.

    Args:
        seconds: when it is worth coming again.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"come again in {seconds} s")
        self.seconds = seconds


class Job:
    """The texts of one request, on their way.

    Attributes:
        answer: becomes the scores of all its texts.
    """

    def __init__(self, model: ServedModel, texts: Sequence[str], answer: "asyncio.Future[Scores]") -> None:
        self.model, self.texts, self.answer = model, texts, answer
        self.costs: list[int] = []
        self.scores: Scores | None = None  # of the texts that are done
        self.taken = 0  # texts that are in a batch, or done


class Batcher:
    """Makes batches of what waits.

    Args:
        model: that answers.
        tokens: the budget of a batch; at least one text is in it, however long.
        most: texts that wait at most.
        on_batch: told, in the thread, of each batch: its texts, its tokens, its seconds, and the scores.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        tokens: int,
        most: int,
        on_batch: Callable[[int, int, float, Scores], None] = lambda texts, tokens, seconds, scores: None,
    ) -> None:
        self.model, self._budget, self._most, self._on_batch = model, tokens, most, on_batch
        self._waiting: deque[Job] = deque()
        self._texts = 0  # that wait
        self._rate = 0.0  # texts a second, lately
        self._wake = threading.Condition()
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop  # since start()
        self._thread = threading.Thread(target=self._run, name="flash-batches", daemon=True)

    @property
    def waiting(self) -> int:
        """Texts that wait."""
        return self._texts

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        """End after the batch at hand; what still waits is cancelled."""
        with self._wake:
            self._stopped = True
            left, self._texts = list(self._waiting), 0
            self._waiting.clear()
            self._wake.notify()
        for job in left:
            job.answer.cancel()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def swap(self, model: ServedModel) -> None:
        """Answer with another model from the next request on; one that is half answered keeps its own."""
        self.model = model

    def submit(self, texts: Sequence[str]) -> Job:
        """Put texts in the queue, from the event loop.

        Raises:
            QueueFullError: too many wait.
        """
        job = Job(self.model, texts, self._loop.create_future())
        if not texts:
            job.answer.set_result(Scores.empty(self.model, 0))
            return job
        with self._wake:
            if self._texts + len(texts) > self._most:
                raise QueueFullError(self._seconds())
            self._texts += len(texts)
            self._waiting.append(job)
            self._wake.notify()
        return job

    def give_up(self, job: Job) -> None:
        """Take a request out of the queue; what is computed of it already is lost."""
        if not job.answer.done():
            self._take_out(job)
            job.answer.cancel()

    def _take_out(self, job: Job) -> None:
        with self._wake:
            if job in self._waiting:
                self._waiting.remove(job)
                self._texts -= len(job.texts) - job.taken

    def _seconds(self) -> int:
        """How long what waits takes, 1 to 60."""
        return int(min(max(self._texts / max(self._rate, LEAST_RATE), 1), 60))

    # ---- the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            self._compute(*batch)

    def _next(self) -> tuple[list[tuple[Job, int, int]], int] | None:
        """Slices of requests that make the next batch, all of one model, and their tokens; None at the end."""
        with self._wake:
            while not self._waiting and not self._stopped:
                self._wake.wait()
            if self._stopped:
                return None
            parts: dict[int, tuple[Job, int, int]] = {}
            tokens, model = 0, self._waiting[0].model
            while self._waiting and self._waiting[0].model is model:
                job = self._waiting.popleft()
                if not job.costs:
                    job.costs = model.costs(job.texts)
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
                full = end < turn
                if end < len(job.texts):  # the others' turn; first again where the budget ended it
                    (self._waiting.appendleft if full else self._waiting.append)(job)
                if full:
                    break
            return list(parts.values()), tokens

    def _compute(self, parts: list[tuple[Job, int, int]], tokens: int) -> None:
        model = parts[0][0].model
        texts = [text for job, begin, end in parts for text in job.texts[begin:end]]
        began = perf_counter()
        try:
            scores = model.scores(texts)
            seconds = perf_counter() - began
            self._on_batch(len(texts), tokens, seconds, scores)
        except Exception as error:  # a request's problem; the thread goes on, and so do the other requests
            if len(parts) > 1:
                for part_of_one in parts:
                    self._compute([part_of_one], tokens)
            else:
                self._take_out(parts[0][0])
                self._tell(self._fail, parts[0][0], error)
            return
        rate = len(texts) / max(seconds, 1e-6)
        self._rate = rate if not self._rate else 0.8 * self._rate + 0.2 * rate
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

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    @staticmethod
    def _deliver(done: list[tuple[Job, Scores]]) -> None:
        for job, scores in done:
            if not job.answer.done():
                job.answer.set_result(scores)

    @staticmethod
    def _fail(job: Job, error: Exception) -> None:
        if not job.answer.done():
            job.answer.set_exception(error)
