"""Micro-batches: who is computed with whom, in which order, and what happens to those who cannot be."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flash.text.classification.serve.batcher import ALWAYS, Batcher, QueueFullError, TextCutError
from flash.text.classification.serve.served_model import Scores, ServedModel


class Counting:
    """A model whose logit of a text is its length; it waits for `go`, and remembers its batches."""

    labels = ("length",)
    max_length = 50

    def __init__(self, *, go: bool = True) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.began = threading.Event()
        if go:
            self.go.set()

    def costs(self, texts: Sequence[str]) -> list[int]:
        return [len(text) + 1 for text in texts]

    def cut(self, texts: Sequence[str]) -> list[int]:
        return [index for index, text in enumerate(texts) if len(text) >= 50]

    def scores(self, texts: Sequence[str]) -> Scores:
        self.began.set()
        assert self.go.wait(20)
        self.batches.append(list(texts))
        if "fail" in texts:
            raise RuntimeError("a text that fails")
        values = np.array([[len(text)] for text in texts], np.float32)
        return Scores(cast(ServedModel, self), values, values / np.float32(100))


def run(
    model: Counting,
    work: Callable[[Batcher], Awaitable[Any]],
    *,
    tokens: int = 100,
    most: int = 1_000,
    delay: float = float("inf"),
) -> Any:
    """What `work` does with a batcher that runs."""

    async def main() -> Any:
        batcher = Batcher(cast(ServedModel, model), tokens=tokens, most=most, delay=delay)
        batcher.start()
        try:
            return await work(batcher)
        finally:
            model.go.set()
            await batcher.close()

    return asyncio.run(main())


async def busy(batcher: Batcher, model: Counting) -> Any:
    """A request that is being computed, so that the next ones wait."""
    job = batcher.submit(["first"])
    await asyncio.to_thread(model.began.wait, 20)
    return job


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.text("ab", max_size=30), max_size=40), min_size=1, max_size=12),
    st.integers(1, 60),
)
def test_every_text_gets_its_own_answer_whatever_is_computed_together(
    requests: list[list[str]], tokens: int
) -> None:
    model = Counting()

    async def work(batcher: Batcher) -> None:
        jobs = [batcher.submit(texts) for texts in requests]
        for job, texts in zip(jobs, requests, strict=True):
            scores = await asyncio.wait_for(job.answer, 20)
            assert scores.logits[:, 0].tolist() == [len(text) for text in texts]
            assert np.array_equal(scores.probabilities, scores.logits / np.float32(100))
        assert batcher.waiting == 0

    run(model, work, tokens=tokens)
    assert sorted(text for batch in model.batches for text in batch) == sorted(
        text for texts in requests for text in texts
    )
    for batch in model.batches:
        assert len(batch) == 1 or sum(len(text) + 1 for text in batch) <= tokens


def test_what_waits_is_computed_together_and_nobody_waits_for_an_idle_model() -> None:
    model = Counting(go=False)

    async def work(batcher: Batcher) -> None:
        await busy(batcher, model)
        jobs = [batcher.submit([f"text {number}"]) for number in range(5)]
        assert batcher.waiting == 5
        model.go.set()
        await asyncio.gather(*(job.answer for job in jobs))

    run(model, work)
    assert model.batches == [["first"], [f"text {number}" for number in range(5)]]


def test_a_large_request_shares_with_small_ones() -> None:
    model = Counting(go=False)

    async def work(batcher: Batcher) -> None:
        await busy(batcher, model)
        large = batcher.submit(["x" * 10] * 100)
        small = batcher.submit(["small"])
        model.go.set()
        await asyncio.gather(small.answer, large.answer)

    run(model, work, tokens=200)
    at = next(number for number, batch in enumerate(model.batches) if "small" in batch)
    assert at == 1  # the first batch after it came
    assert len(model.batches) > 3  # the large one is 1,100 tokens, of which a batch takes 200


def test_the_queue_has_an_end_and_a_request_given_up_makes_room() -> None:
    model = Counting(go=False)

    async def work(batcher: Batcher) -> None:
        await busy(batcher, model)
        waiting = batcher.submit(["a"] * 8)
        for rate, seconds in ((float("inf"), 1), (0.5, 32), (0.01, 60)):  # tokens a second; 16 of them wait
            batcher._rate = rate
            with pytest.raises(QueueFullError) as full:
                batcher.submit(["b"] * 3)
            assert full.value.seconds == seconds
        batcher.give_up(waiting)
        assert waiting.answer.cancelled()
        assert batcher.waiting == 0
        batcher.give_up(waiting)  # twice is once
        taken = batcher.submit(["c"] * 10)
        model.go.set()
        await taken.answer

    run(model, work, most=10)
    assert not any("a" in batch for batch in model.batches)


def test_more_work_than_may_wait_is_refused_by_time_but_a_few_texts_never_are() -> None:
    model = Counting()

    async def work(batcher: Batcher) -> None:
        await batcher.submit(["measures the rate"]).answer
        model.go.clear()
        model.began.clear()
        await busy(batcher, model)
        few = [batcher.submit(["x"]) for _ in range(ALWAYS)]
        with pytest.raises(QueueFullError):
            batcher.submit(["y"])
        model.go.set()
        await asyncio.gather(*(job.answer for job in few))
        large = batcher.submit(["z"] * 500)  # nothing waits before it
        await large.answer

    run(model, work, delay=0.0)
    assert not any("y" in batch for batch in model.batches)


def test_a_text_that_would_be_cut_fails_a_request_that_does_not_want_it() -> None:
    model = Counting(go=False)

    async def work(batcher: Batcher) -> None:
        await busy(batcher, model)
        refused = batcher.submit(["short", "x" * 50, "y" * 60], whole=True)
        whole, other = batcher.submit(["short"], whole=True), batcher.submit(["x" * 50])
        model.go.set()
        with pytest.raises(TextCutError) as error:
            await refused.answer
        assert error.value.index == 1
        assert (await whole.answer).logits.tolist() == [[5]]
        assert (await other.answer).logits.tolist() == [[50]]
        assert batcher.waiting == 0

    run(model, work, tokens=1_000)


def test_a_request_given_up_while_it_is_computed_is_forgotten() -> None:
    model = Counting(go=False)

    async def work(batcher: Batcher) -> None:
        job = await busy(batcher, model)
        batcher.give_up(job)
        model.go.set()
        scores = await batcher.submit(["next"]).answer
        assert scores.logits.tolist() == [[4]]
        assert job.answer.cancelled()

    run(model, work)


def test_a_text_that_fails_fails_its_own_request_only() -> None:
    model = Counting(go=False)

    async def work(batcher: Batcher) -> None:
        await busy(batcher, model)
        good, bad, other = (batcher.submit(texts) for texts in (["good"], ["x", "fail"], ["other"]))
        model.go.set()
        assert (await good.answer).logits.tolist() == [[4]]
        assert (await other.answer).logits.tolist() == [[5]]
        with pytest.raises(RuntimeError, match="a text that fails"):
            await bad.answer
        assert batcher.waiting == 0

    run(model, work)


def test_what_ends_the_thread_fails_all_that_waits_and_all_that_comes() -> None:
    model, told = Counting(go=False), list[BaseException]()

    class Panic(BaseException):
        """No `Exception`."""

    def scores(texts: Sequence[str]) -> Scores:
        model.began.set()
        assert model.go.wait(20)
        raise Panic

    model.scores = scores  # type: ignore[method-assign]

    async def main() -> None:
        batcher = Batcher(cast(ServedModel, model), tokens=10, most=10, on_death=told.append)
        batcher.start()
        jobs = [await busy(batcher, model), batcher.submit(["waits"])]
        model.go.set()
        for job in jobs:
            await asyncio.wait((job.answer,), timeout=20)
        jobs.append(batcher.submit(["comes"]))
        assert [type(job.answer.exception()) for job in jobs] == [Panic] * 3
        assert batcher.waiting == 0
        await asyncio.wait_for(batcher.close(), 20)

    asyncio.run(main())
    assert [type(error) for error in told] == [Panic]


def test_a_request_that_fails_in_its_middle_leaves_the_queue() -> None:
    async def work(batcher: Batcher) -> None:
        job = batcher.submit(["x" * 60, "fail", *["y" * 60] * 50])
        with pytest.raises(RuntimeError, match="a text that fails"):
            await job.answer
        assert (await batcher.submit(["next"]).answer).logits.tolist() == [[4]]
        assert batcher.waiting == 0

    model = Counting()
    run(model, work)
    assert len(model.batches) < 20  # what was left of it was not computed


def test_a_new_model_answers_what_comes_after_it() -> None:
    old, new = Counting(go=False), Counting()

    async def work(batcher: Batcher) -> None:
        await busy(batcher, old)
        before = batcher.submit(["before"])
        batcher.swap(cast(ServedModel, new))
        after = batcher.submit(["after"])
        old.go.set()
        assert (await before.answer).model is old  # type: ignore[comparison-overlap]
        assert (await after.answer).model is new  # type: ignore[comparison-overlap]

    run(old, work)
    assert (old.batches, new.batches) == ([["first"], ["before"]], [["after"]])


def test_no_texts_are_answered_at_once() -> None:
    model = Counting()

    async def work(batcher: Batcher) -> None:
        job = batcher.submit([])
        assert job.answer.done()
        assert (await job.answer).logits.shape == (0, 1)

    run(model, work)
    assert model.batches == []


def test_closing_cancels_what_waits() -> None:
    model = Counting(go=False)

    async def main() -> None:
        batcher = Batcher(cast(ServedModel, model), tokens=10, most=10)
        batcher.start()
        computed = await busy(batcher, model)
        waiting = batcher.submit(["waits"])
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0)
        model.go.set()
        await closing
        assert waiting.answer.cancelled()
        assert computed.answer.cancelled()

    asyncio.run(main())
