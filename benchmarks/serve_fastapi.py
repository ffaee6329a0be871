"""A peer of `serve.py`: a plain FastAPI endpoint around our predictor, on uvicorn with its fastest parts.

    python benchmarks/serve_fastapi.py MODEL PORT

An endpoint by `def`, which FastAPI runs in its threads, with a Pydantic body. It takes {"inputs": text} and answers
[{"label": ..., "score": ...}, ...], highest first, as all servers here do.
"""

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from flash.text.classification.predictor import Predictor

app = FastAPI()
predictor = Predictor.load(sys.argv[1])


class Query(BaseModel):
    """What is asked."""

    inputs: str


@app.get("/health")
def health() -> str:
    """Ready as soon as it answers."""
    return "ok"


@app.post("/predict")
def predict(query: Query) -> list[dict[str, Any]]:
    """The labels of one text."""
    scores = predictor.probabilities([query.inputs])[0].tolist()
    ranked = sorted(zip(scores, predictor.labels, strict=True), reverse=True)
    return [{"label": label, "score": score} for score, label in ranked]


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), loop="uvloop", http="httptools")
