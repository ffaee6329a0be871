"""The Prometheus metrics at `/metrics`.

With several workers, each writes its values into files in the folder `PROMETHEUS_MULTIPROC_DIR`, and the worker that
gets the request adds them up.
"""

import os
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from flash.core.version import __version__
from flash.text.classification.serve.served_model import Scores, ServedModel

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)
TOKENS = (16, 64, 256, 1_024, 4_096, 16_384, 65_536)


class Metrics:
    """The metrics of one worker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._several = FOLDER in os.environ
        if not self._several:
            ProcessCollector(registry=self.registry)
        registry = self.registry
        self._requests = Counter(
            "flash_requests", "Requests answered.", ("method", "path", "status"), registry=registry
        )
        self._seconds = Histogram(
            "flash_request_seconds",
            "From the head of a request to its answer.",
            ("path",),
            buckets=SECONDS,
            registry=registry,
        )
        self._texts = Counter("flash_texts", "Texts classified.", registry=registry)
        self._labels = Counter(
            "flash_predicted_labels", "Texts that a label applied to.", ("label",), registry=registry
        )
        self._batch_texts = Histogram(
            "flash_batch_texts", "Texts computed together.", buckets=COUNTS, registry=registry
        )
        self._batch_tokens = Histogram(
            "flash_batch_tokens", "Tokens computed together, as guessed.", buckets=TOKENS, registry=registry
        )
        self._batch_seconds = Histogram(
            "flash_batch_seconds", "What computing them took.", buckets=SECONDS, registry=registry
        )
        self._waiting = Gauge(
            "flash_waiting_texts", "Texts in the queue.", registry=registry, multiprocess_mode="livesum"
        )
        self._reloads = Counter(
            "flash_reloads", "Models loaded while serving.", ("result",), registry=registry
        )
        self._info = Gauge(
            "flash_model_info",
            "1 for the model that answers.",
            ("model", "backbone", "version"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._served: Gauge | None = None
        self._made: dict[tuple[str, str, int], Counter] = {}
        self._timed: dict[str, Histogram] = {}
        self._counted: dict[str, Counter] = {}

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a response. `path` must be a known route, so that clients cannot create new time series."""
        key = (method, path, status)
        if key not in self._made:
            self._made[key] = self._requests.labels(method, path, str(status))
            self._timed.setdefault(path, self._seconds.labels(path))
        self._made[key].inc()
        self._timed[path].observe(seconds)

    def batch(self, texts: int, tokens: int, seconds: float, scores: Scores) -> None:
        """Count a computed batch."""
        self._texts.inc(texts)
        self._batch_texts.observe(texts)
        self._batch_tokens.observe(tokens)
        self._batch_seconds.observe(seconds)
        counts = scores.model.decided(scores.probabilities).sum(axis=0)
        for column in np.flatnonzero(counts).tolist():
            label = scores.model.labels[column]
            if label not in self._counted:
                self._counted[label] = self._labels.labels(label)
            self._counted[label].inc(int(counts[column]))

    def reload(self, *, done: bool) -> None:
        """Count a reload."""
        self._reloads.labels("switched" if done else "refused").inc()

    def serving(self, model: ServedModel) -> None:
        """Set which model answers."""
        if self._served is not None:
            self._served.set(0)
        self._served = self._info.labels(model.name, model.backbone, __version__)
        self._served.set(1)

    def gauge(self, waiting: int) -> None:
        """Set the number of waiting texts of this worker."""
        self._waiting.set(waiting)

    def text(self) -> bytes:
        """Return the metrics of all workers in Prometheus' text format."""
        if not self._several:
            return generate_latest(self.registry)
        # a cleaner of temporary folders may have deleted it
        Path(os.environ[FOLDER]).mkdir(parents=True, exist_ok=True)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
