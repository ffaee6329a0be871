"""A peer of `serve.py`: LitServe around our predictor, with batching.

    python benchmarks/serve_litserve.py MODEL PORT TEXTS SECONDS

A batch is so many texts, or what came within so many seconds. Of its other settings, a second worker and batches without
a pause were slower on two cores, and `fast_queue`, of which its documentation says that it is faster, changes nothing in
0.2.19. It takes {"inputs": text} and answers [{"label": ..., "score": ...}, ...], highest first, as all servers here do.
"""

import sys
from typing import Any

import litserve

from flash.text.classification.predictor import Predictor


class Labels(litserve.LitAPI):
    """Texts to ranked labels, a batch at a time."""

    def __init__(self, model: str, size: int, seconds: float) -> None:
        super().__init__(max_batch_size=size, batch_timeout=seconds)
        self.model = model

    def setup(self, device: str) -> None:
        """Load the model, in a process of its own."""
        self.predictor = Predictor.load(self.model)

    def decode_request(self, request: dict[str, str]) -> str:
        """The text of a request."""
        return request["inputs"]

    def predict(self, texts: list[str]) -> list[list[tuple[float, str]]]:
        """Ranked labels of each text."""
        labels = self.predictor.labels
        rows = self.predictor.probabilities(texts).tolist()
        return [sorted(zip(row, labels, strict=True), reverse=True) for row in rows]

    def encode_response(self, ranked: list[tuple[float, str]]) -> list[dict[str, Any]]:
        """The answer to one request."""
        return [{"label": label, "score": score} for score, label in ranked]


if __name__ == "__main__":
    model, port, size, seconds = sys.argv[1:]
    server = litserve.LitServer(Labels(model, int(size), float(seconds)), accelerator="cpu", fast_queue=True)
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False)
