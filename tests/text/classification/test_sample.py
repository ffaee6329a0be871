"""The synthetic comments: columns, proportions, the same everywhere, and neither too easy nor mere noise."""

import hashlib
import json
import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline

from flash import Trainer
from flash.cli.training import from_sample
from flash.core.errors import FlashError
from flash.text import TextClassifier
from flash.text.classification.predictor import Predictor
from flash.text.classification.sample import KINDS, LABELS, SENTENCES, sample_table

REPOSITORY = Path(__file__).parents[3]
PACKAGE = REPOSITORY / "src" / "flash"
NAMES = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]


def texts_of(table: pa.Table) -> list[str]:
    texts: list[str] = table["comment_text"].to_pylist()
    return texts


def labels_of(table: pa.Table) -> NDArray[np.int8]:
    return np.stack([table[label].to_numpy() for label in NAMES], axis=1)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return sample_table()


def test_columns_and_types(table: pa.Table) -> None:
    assert table.column_names == ["comment_text", *NAMES]
    assert list(LABELS) == NAMES
    assert table.schema.types == [pa.large_string()] + [pa.int8()] * 6
    assert table.num_rows == 3000
    assert sum(column.null_count for column in table.columns) == 0
    assert set(np.unique(labels_of(table)).tolist()) == {0, 1}


def test_proportions(table: pa.Table) -> None:
    labels = labels_of(table)
    shares = dict(zip(NAMES, labels.mean(axis=0).tolist(), strict=True))
    expected = [0.25, 0.04, 0.12, 0.04, 0.14, 0.05]
    assert shares == pytest.approx(dict(zip(NAMES, expected, strict=True)), abs=0.03)
    assert 0.55 < (labels.sum(axis=1) == 0).mean() < 0.70
    assert sum(share for share, _, _ in KINDS) == pytest.approx(1)


def test_labels_go_together_as_they_do_in_life(table: pa.Table) -> None:
    toxic, severe, obscene, _, insult, _ = labels_of(table).T.astype(bool)
    assert toxic[severe].all()
    assert 0.7 < toxic[insult].mean() < 1
    assert 0.6 < toxic[obscene].mean() < 0.95  # a coarse word alone is not always toxic
    assert insult[obscene].mean() > 2 * insult.mean()


def test_texts_are_nearly_all_different_and_well_formed(table: pa.Table) -> None:
    texts = texts_of(table)
    assert len(set(texts)) >= 0.95 * len(texts)
    for text in texts:
        assert text == text.strip()
        assert "{" not in text
        assert "\n" not in text
    assert len(min(texts, key=len)) >= 8


def test_harmless_comments_use_the_harmful_words(table: pa.Table) -> None:
    harmless = labels_of(table).sum(axis=1) == 0
    texts = np.array([text.lower() for text in texts_of(table)])
    for word in ("threatened", "watch your back", "idiot", "turnip", "norlanders", "flarp"):
        having = np.char.find(texts, word) >= 0
        assert having[harmless].sum() >= 5, word


def test_the_same_on_every_machine(table: pa.Table) -> None:
    texts = "\n".join(texts_of(table)).encode()
    assert (
        hashlib.sha256(texts).hexdigest()
        == "e00fec839d0239c8bb51f598b20efa18a5fd7bea516d90f2e7952c85e5a8c5cf"
    )
    labels = hashlib.sha256(labels_of(table).tobytes()).hexdigest()
    assert labels == "5bcfba122890f2f8f54467c64ded9e4fab87e169a1f525133c1ed1ac44101ef6"


def test_the_seed_decides_and_fewer_rows_are_the_first(table: pa.Table) -> None:
    random.seed(99)  # the global state plays no part
    assert sample_table(200).equals(table.slice(0, 200))
    assert not sample_table(200, seed=1)["comment_text"].equals(table["comment_text"].slice(0, 200))
    assert sample_table(1).num_rows == 1


def test_every_template_is_used() -> None:
    texts = " ".join(texts_of(sample_table(6000))).lower()
    for sentence in (sentence for kind in SENTENCES.values() for sentence in kind):
        longest = max(sentence.lower().replace("}", "{").split("{")[::2], key=len).strip(" .,!?'")
        assert longest in texts


def test_a_good_model_scores_well_but_clearly_below_one(table: pa.Table) -> None:
    texts, labels = texts_of(table), labels_of(table)
    features = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True))
    train, test = features.fit_transform(texts[:2400]), features.transform(texts[2400:])
    scores = []
    for column in range(6):
        model = LogisticRegression(C=10.0, max_iter=500).fit(train, labels[:2400, column])
        scores.append(average_precision_score(labels[2400:, column], model.predict_proba(test)[:, 1]))
    assert 0.70 < np.mean(scores) < 0.95
    assert max(scores) < 0.99


COMPLIMENTS = ["You are wonderful", "You are right", "You are kind!", "Thank you for your help"]
INSULTS = ["You are a turnip.", "You absolute turnip", "Listen, you cabbage, the article is not yours."]


def test_a_model_of_the_first_command_tells_compliments_from_insults(tmp_path: Path) -> None:
    data = from_sample(val_split=0.1)
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer = Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.pt")
    predictor = Predictor.load(tmp_path / "model.pt")
    assert predictor.predict(COMPLIMENTS) == [[]] * len(COMPLIMENTS)
    assert [{"toxic", "insult"} <= set(names) for names in predictor.predict(INSULTS)] == [True] * 3
    assert 0.75 < float(trainer.callback_metrics["val_macro_average_precision"]) < 0.92
    assert predictor.predict(["You are wonderful", "You absolute turnip"]) == [[], ["toxic", "insult"]]
    assert [bool(names) for names in predictor.predict(page_examples()[:3])] == [False, True, True]
    scores = dict(zip(predictor.labels, predictor.predict(INSULTS[1:2], "probabilities")[0], strict=True))
    for shown in shown_scores():
        assert shown == pytest.approx({name: float(scores[name]) for name in shown}, abs=0.0015)


def page_examples() -> list[str]:
    """The texts that the server's page offers: thanks, an insult, a threat, ..."""
    page = (PACKAGE / "text" / "classification" / "serve" / "page" / "single.js").read_text()
    return re.findall(r'^  \["\w[^"]*", "([^"]+)"\],$', page, re.MULTILINE)


def shown_scores() -> list[dict[str, float]]:
    """What the serving guide shows of "You absolute turnip"."""
    guide = (REPOSITORY / "docs" / "serving" / "README.md").read_text()
    found = [json.loads(block) for block in re.findall(r"```json\n(.*?)\n```", guide, re.DOTALL)]
    ours, moderation, hugging_face, flash = found[:4]
    return [
        ours["results"][1]["scores"],
        moderation["results"][0]["category_scores"],
        {entry["label"]: entry["score"] for entry in hugging_face},
        flash["result"]["outputs"],
    ]


@pytest.mark.parametrize("rows", [0, -3])
def test_no_rows(rows: int) -> None:
    with pytest.raises(FlashError, match=rf"a sample of {rows} rows is none; type, for example, rows=3000"):
        sample_table(rows)
