"""`TextClassificationData`: texts and targets for training, validation, testing and prediction, from any source.

Every `from_*` method takes the same path: read -> infer the target format -> encode -> split -> `TextDataset`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from flash.core.errors import DataError, FlashError, unknown_name
from flash.text.classification.data_options import check_fields, check_options
from flash.text.classification.dataset import Batch, RowBatches, TextDataset, make_dataset
from flash.text.classification.from_flash.options import take_data_options
from flash.text.classification.from_flash.shown_rows import ShowsRows
from flash.text.classification.reading.csv import read_csv
from flash.text.classification.reading.fasttext import read_fasttext
from flash.text.classification.reading.fields import field_names, given_texts
from flash.text.classification.reading.labelstudio import Annotators, read_labelstudio
from flash.text.classification.reading.nested import refuse_objects, spread_scores
from flash.text.classification.reading.odd_rows import without_odd_rows
from flash.text.classification.reading.source import Source, check_columns
from flash.text.classification.reading.tables import (
    read_data_frame,
    read_hf_dataset,
    read_json,
    read_lists,
    read_parquet,
)
from flash.text.classification.targets.cells import read_cells
from flash.text.classification.targets.formats import infer_format
from flash.text.classification.targets.labels import LabelSet
from flash.text.classification.targets.repeated_texts import warn_of_repeated_texts
from flash.text.classification.targets.unknown import NOT_ALLOWED, UnknownTargets, UnknownValues
from flash.text.classification.training_rows import check_training_rows, describe, hold_out

# simple types, because the command line derives its options from them
Files: TypeAlias = str | Path | list[str] | None
Fields: TypeAlias = list[str] | str | None
InputField: TypeAlias = str | list[str]
Read: TypeAlias = Callable[[Any, str, list[str]], Source]

SPLITS = ("train", "val", "test", "predict")
HF_SPLITS = {"train": "train", "val": "validation", "test": "test", "predict": "test"}


class TextClassificationData(ShowsRows, LightningDataModule):
    """Texts and targets for `flash.Trainer`, created by one of the `from_*` methods.

    All of these accept the options `label_delimiter`, `labels`, `num_classes`, `multi_label`, `unknown_labels`,
    `unknown_targets`, `unknown_values`, `val_split`, `batch_size`, `num_workers` and `seed`, which `from_sources`
    explains. The target formats are listed in `flash.text.classification.targets.formats`.

    Attributes:
        train_dataset, val_dataset, test_dataset, predict_dataset: a `TextDataset`, or None.
        label_set: the labels, and whether several may apply; None if there are only texts to predict.
        input_field: the text column, or a list of several.
        files: the files that were read, such as `{"train_file": "train.csv"}`; empty for data in memory.
    """

    def __init__(
        self,
        train_dataset: TextDataset | None = None,
        val_dataset: TextDataset | None = None,
        test_dataset: TextDataset | None = None,
        predict_dataset: TextDataset | None = None,
        *,
        label_set: LabelSet | None = None,
        input_field: InputField = "text",
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.train_dataset = train_dataset
        self.val_dataset = val_dataset
        self.test_dataset = test_dataset
        self.predict_dataset = predict_dataset
        self.label_set = label_set
        self.input_field = input_field
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.files: dict[str, Any] = {}
        if num_workers:
            rank_zero_info(
                f"num_workers={num_workers} changes nothing: batches are slices of arrays in memory, and the model "
                "tokenises, so no worker processes are started."
            )

    @classmethod
    def from_csv(
        cls,
        input_field: InputField,
        target_fields: Fields = None,
        train_file: Files = None,
        val_file: Files = None,
        test_file: Files = None,
        predict_file: Files = None,
        *,
        delimiter: str | None = None,
        encoding: str = "utf-8",
        quoting: bool = True,
        column_names: list[str] | None = None,
        sheet: str | None = None,
        **options: Any,
    ) -> "TextClassificationData":
        """CSV, TSV or Excel files.

        Endings: .csv, .tsv, .tab and .txt; .xlsx, .xlsm, .xlsb, .xls and .ods.

        Args:
            input_field: column of texts, or several columns. Pass several as a list, such as `["title", "body"]`.
            target_fields: 0/1 columns, one per label, or the one column of label names.
            train_file: files to train on, or a glob pattern.
            val_file: files to validate on.
            test_file: files to test on after training.
            predict_file: files to predict; only their texts are read.
            delimiter: separator of cells; by default a tab in .tsv and .tab, and in .txt with one in its header,
                else a comma.
            encoding: text encoding of the files, such as cp1252.
            quoting: whether cells may be enclosed in double quotes.
            column_names: names of the columns, in order, if the files have no header.
            sheet: sheet of an Excel file; by default the first.
            **options: see `from_sources`.

        Raises:
            DataError: files, columns, texts or targets cannot be read as asked.
        """
        read = partial(
            read_csv,
            delimiter=delimiter,
            encoding=encoding,
            quoting=quoting,
            column_names=column_names,
            sheet=sheet,
        )
        return cls.from_sources(
            lambda files, _, columns: read(files, columns=columns),
            "file",
            (train_file, val_file, test_file, predict_file),
            input_field,
            target_fields,
            **options,
        )

    @classmethod
    def from_json(
        cls,
        input_field: InputField,
        target_fields: Fields = None,
        train_file: Files = None,
        val_file: Files = None,
        test_file: Files = None,
        predict_file: Files = None,
        *,
        field: str | None = None,
        **options: Any,
    ) -> "TextClassificationData":
        """JSON lines, or a JSON array of objects.

        The array may be the value of a `field`.

        Args:
            input_field: key of the text, or several keys. Pass several as a list, such as `["title", "body"]`.
            target_fields: 0/1 keys, one per label, or the one key of label names.
            train_file: files to train on, or a glob pattern.
            val_file: files to validate on.
            test_file: files to test on after training.
            predict_file: files to predict; only their texts are read.
            field: key that holds the array of objects.
            **options: see `from_sources`.

        Raises:
            DataError: files, keys, texts or targets cannot be read as asked.
        """
        return cls.from_sources(
            lambda files, _, columns: read_json(files, columns=columns, field=field),
            "file",
            (train_file, val_file, test_file, predict_file),
            input_field,
            target_fields,
            **options,
        )

    @classmethod
    def from_fasttext(
        cls,
        train_file: Files = None,
        val_file: Files = None,
        test_file: Files = None,
        predict_file: Files = None,
        *,
        label_prefix: str = "__label__",
        **options: Any,
    ) -> "TextClassificationData":
        """FastText files: lines of labels (__label__NAME) and a text.

        Args:
            train_file: files to train on, or a glob pattern.
            val_file: files to validate on.
            test_file: files to test on after training.
            predict_file: files to predict; only their texts are read.
            label_prefix: prefix that marks a label.
            **options: see `from_sources`.

        Raises:
            DataError: files or labels cannot be read as asked.
        """
        return cls.from_sources(
            lambda files, _, columns: read_fasttext(files, label_prefix=label_prefix),
            "file",
            (train_file, val_file, test_file, predict_file),
            "text",
            "labels",
            **options,
        )

    @classmethod
    def from_parquet(
        cls,
        input_field: InputField,
        target_fields: Fields = None,
        train_file: Files = None,
        val_file: Files = None,
        test_file: Files = None,
        predict_file: Files = None,
        **options: Any,
    ) -> "TextClassificationData":
        """Parquet files.

        Args:
            input_field: column of texts, or several columns. Pass several as a list, such as `["title", "body"]`.
            target_fields: 0/1 columns, one per label, or the one column of label names.
            train_file: files to train on, or a glob pattern.
            val_file: files to validate on.
            test_file: files to test on after training.
            predict_file: files to predict; only their texts are read.
            **options: see `from_sources`.

        Raises:
            DataError: files, columns, texts or targets that cannot be read as asked.
        """
        return cls.from_sources(
            lambda files, _, columns: read_parquet(files, columns=columns),
            "file",
            (train_file, val_file, test_file, predict_file),
            input_field,
            target_fields,
            **options,
        )

    @classmethod
    def from_data_frame(
        cls,
        input_field: InputField,
        target_fields: Fields = None,
        train_data_frame: Any = None,
        val_data_frame: Any = None,
        test_data_frame: Any = None,
        predict_data_frame: Any = None,
        **options: Any,
    ) -> "TextClassificationData":
        """Read pandas data frames.

        Args:
            input_field: column of texts, or several columns. Pass several as a list, such as `["title", "body"]`.
            target_fields: 0/1 columns, one per label, or the one column of label names.
            train_data_frame: a `pandas.DataFrame`.
            val_data_frame: the same, for validation.
            test_data_frame: the same, for testing.
            predict_data_frame: the same; only the texts are read.
            **options: see `from_sources`.

        Raises:
            DataError: columns, texts or targets that cannot be read as asked.
        """
        return cls.from_sources(
            lambda frame, name, columns: read_data_frame(frame, name, columns=columns),
            "data_frame",
            (train_data_frame, val_data_frame, test_data_frame, predict_data_frame),
            input_field,
            target_fields,
            **options,
        )

    @classmethod
    def from_hf_datasets(
        cls,
        input_field: InputField,
        target_fields: Fields = None,
        train_hf_dataset: Any = None,
        val_hf_dataset: Any = None,
        test_hf_dataset: Any = None,
        predict_hf_dataset: Any = None,
        **options: Any,
    ) -> "TextClassificationData":
        """Hugging Face data sets, from disk or the hub.

        The names of a `ClassLabel` column become the labels.

        Args:
            input_field: column of texts, or several columns. Pass several as a list, such as `["title", "body"]`.
            target_fields: 0/1 columns, one per label, or the one column of label names.
            train_hf_dataset: folder or hub name of the data set to train on (its split train). Or a `datasets.Dataset`.
            val_hf_dataset: data set to validate on (its split validation).
            test_hf_dataset: data set to test on after training (its split test).
            predict_hf_dataset: data set to predict (its split test); only its texts are read.
            **options: see `from_sources`.

        Raises:
            DataError: columns, texts or targets that cannot be read as asked.
            MissingExtraError: the package `datasets` is not installed.
        """
        return cls.from_sources(
            lambda dataset, name, columns: read_hf_dataset(
                dataset, name, columns=columns, split=HF_SPLITS[name.split("_")[0]]
            ),
            "hf_dataset",
            (train_hf_dataset, val_hf_dataset, test_hf_dataset, predict_hf_dataset),
            input_field,
            target_fields,
            **options,
        )

    @classmethod
    def from_lists(
        cls,
        train_data: Any = None,
        train_targets: Any = None,
        val_data: Any = None,
        val_targets: Any = None,
        test_data: Any = None,
        test_targets: Any = None,
        predict_data: Any = None,
        *,
        input_field: InputField = "text",
        **options: Any,
    ) -> "TextClassificationData":
        """Read lists of texts and of targets: names, lists of names, class indices, or vectors.

        Args:
            train_data: N texts.
            train_targets: N targets, or an (N, L) array.
            val_data: texts for validation.
            val_targets: their targets.
            test_data: texts for testing.
            test_targets: their targets.
            predict_data: texts to predict.
            input_field: the fields of a text, such as `["title", "body"]`, if each text is a dict with these, or a list
                of their texts in this order.
            **options: see `from_sources`.

        Raises:
            DataError: texts or targets cannot be read as asked.
        """
        pairs = [(train_data, train_targets), (val_data, val_targets), (test_data, test_targets)]
        for split, (texts, targets) in zip(SPLITS, pairs, strict=False):
            if (texts is None) != (targets is None):
                given, missing = ("targets", "data") if texts is None else ("data", "targets")
                raise DataError(
                    f"{split}_{given} is given without {split}_{missing}; pass both, or predict_data for texts "
                    "alone"
                )
        pairs.append((predict_data, None))
        names = field_names(input_field)
        datamodule = cls.from_sources(
            lambda pair, name, _: read_lists(
                given_texts(pair[0], name, names) if len(names) > 1 else pair[0], pair[1], name
            ),
            "data",
            [None if pair[0] is None else pair for pair in pairs],
            "text",
            "targets",
            **options,
        )
        datamodule.input_field = input_field
        return datamodule

    @classmethod
    def from_labelstudio(
        cls,
        export_json: Files = None,
        train_export_json: Files = None,
        val_export_json: Files = None,
        test_export_json: Files = None,
        predict_export_json: Files = None,
        data_folder: str | None = None,
        *,
        input_field: InputField | None = None,
        target_field: str | None = None,
        annotators: Annotators = "error",
        **options: Any,
    ) -> "TextClassificationData":
        """Label Studio exports, JSON or JSON-MIN.

        Multi-label unless `multi_label=False`.
        Tasks without annotations, or with cancelled ones only, are left out and counted; a task without choices is a row
        without labels; annotations marked as ground truth take precedence.

        Args:
            export_json: another name of train_export_json.
            train_export_json: exports to train on, or a glob pattern.
            val_export_json: exports to validate on.
            test_export_json: exports to test on after training.
            predict_export_json: exports to predict; only their texts are read.
            data_folder: ignored; accepted for scripts written for Lightning Flash. The export holds the texts.
            input_field: key of the text in a task's data, or several keys; by default text, or the only text. Pass
                several as a list.
            target_field: name of the choices in the labeling interface, if there are several.
            annotators: if annotations of a task differ: error, first, majority or union. `"first"` takes the one created
                first, `"majority"` the labels that more than half of them have, `"union"` all labels.
            **options: see `from_sources`.

        Raises:
            DataError: files, keys, texts or choices cannot be read as asked.
        """
        if export_json is not None and train_export_json is not None:
            raise DataError("export_json and train_export_json are the same thing; pass one of them")
        return cls.from_sources(
            lambda files, _, columns: read_labelstudio(
                files,
                input_field=input_field,
                target_field=target_field,
                annotators=annotators,
                annotated="labels" in columns,
            ),
            "export_json",
            (
                export_json if train_export_json is None else train_export_json,
                val_export_json,
                test_export_json,
                predict_export_json,
            ),
            "text" if input_field is None else input_field,
            "labels",
            **options,
        )

    @classmethod
    def from_sources(
        cls,
        read: Read,
        kind: str,
        given: Sequence[Any],
        input_field: InputField,
        target_fields: Fields = None,
        *,
        label_delimiter: str | None = None,
        labels: list[str] | None = None,
        num_classes: int | None = None,
        multi_label: bool | None = None,
        unknown_labels: Literal["error", "ignore"] = "error",
        unknown_targets: Literal["error", "mask", "negative"] = "error",
        unknown_values: UnknownValues = None,
        val_split: int | float | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        **unknown: Any,
    ) -> "TextClassificationData":
        """Read, encode and split the data of every `from_*` method; documents their common options.

        Args:
            read: reads one input: (value, name of the input, needed columns) -> Source.
            kind: the common part of the arguments' names, such as `file` for `train_file`.
            given: the inputs for train, val, test and predict; None if not given.
            input_field: column of texts, or several columns. Pass several as a list, such as `["title", "body"]`.
            target_fields: 0/1 columns, one per label, or the one column of label names.
            label_delimiter: separator of label names in one cell; by default a comma.
            labels: label names in order; by default those of the training rows, label2 before label10.
            num_classes: number of labels, if targets are class indices without names.
            multi_label: whether a text can have any number of labels; by default inferred from the targets.
            unknown_labels: labels that no training row has: error, or ignore (with a warning).
            unknown_targets: missing targets (-1, blank, NA): error, mask (leave them out) or negative.
                They may be in 0/1 columns and in vectors. `"mask"` ignores each such cell in the loss, the thresholds, the
                calibration and the metrics of its label, and removes rows without any known target; `"negative"` reads
                them as labels that do not apply. An empty text in a column of lists of labels is always an empty label
                set. For single-label targets, `"mask"` removes the rows without a label.
            unknown_values: values of missing targets; by default -1, blank (`""`) and NA. One or a list such as
                `[-1, 9, ""]`, where `""` stands for blanks, nulls and NaN. The default is -1, blanks, nulls, NaN, and
                NA, N/A, nan, null, None, <NA> and ? in upper or lower case.
            val_split: fraction or number of training rows to hold out for validation. The split is stratified.
            batch_size: rows per batch.
            num_workers: ignored; accepted for scripts written for Lightning Flash. Batches need no worker processes.
            seed: random seed of the split and of the row order.
            **unknown: any other option is an error that suggests the most similar one.

        Raises:
            FlashError: an option is unknown or out of range.
            DataError: something cannot be read as asked, or no training row has a label.

        Warns:
            UserWarning: labels that apply to every training row or to none; label names that look like mistakes; rows
                that are removed because their targets are unknown.
        """
        told = take_data_options(unknown) if unknown else {}  # Lightning Flash's keywords
        labels, num_classes = told.get("labels", labels), told.get("num_classes", num_classes)
        multi_label = told.get("multi_label", multi_label)
        label_delimiter = told.get("label_delimiter", label_delimiter)
        if unknown:
            known = cast(Any, cls.from_sources).__kwdefaults__
            raise FlashError(unknown_name("option", next(iter(unknown)), known))
        check_options(unknown_labels, batch_size, num_workers, seed)
        inputs = {f"{split}_{kind}": value for split, value in zip(SPLITS, given, strict=True)}
        names = field_names(input_field)
        fields = check_fields(inputs, names, target_fields)
        sources, spread = {}, None
        for name, value in inputs.items():  # no comprehension here: a warning counts the frames to the user
            if value is not None:
                targets = [] if name.startswith("predict") else fields
                source = read(value, name, [*names, *targets])
                if targets:
                    source, keys = spread_scores(without_odd_rows(source, [*names, *targets]), targets)
                    spread = keys if spread is None and keys != targets else spread
                    targets = check_columns(source.table.column_names, spread or targets, source.name)
                if source.kind != "csv":  # cells of CSV are always text
                    refuse_objects(source, [*names, *targets])
                sources[name] = source
        target_format, unknown_cells = None, NOT_ALLOWED
        with_targets = {name: source for name, source in sources.items() if not name.startswith("predict")}
        if with_targets:
            unknown_cells = UnknownTargets.from_options(unknown_targets, unknown_values)
            if spread is not None:
                fields = target_fields = spread
                multi_label = True if multi_label is None else multi_label
            with_targets, targets_read, label_delimiter = read_cells(
                with_targets,
                target_fields or fields,
                multi_label=multi_label,
                label_delimiter=label_delimiter,
                labels=labels,
                blank_is_negative=unknown_targets == "negative",
            )
            fields = [targets_read] if isinstance(targets_read, str) else list(targets_read)
            sources |= with_targets
            target_format = infer_format(
                next(iter(with_targets.values())),
                targets_read,
                multi_label=multi_label,
                label_delimiter=label_delimiter,
                labels=labels,
                num_classes=num_classes,
                unknown=unknown_cells,
            )
        datasets = {}
        for name, source in list(sources.items()):
            sources[name], datasets[name.split("_")[0]] = make_dataset(
                source, names, fields, target_format, name, unknown_labels, unknown_cells
            )
        whole = dict(datasets)
        if val_split is not None:
            rows, held_out = hold_out(datasets, val_split, seed)
            datasets["train"], datasets["val"] = (
                datasets["train"].take(rows),
                datasets["train"].take(held_out),
            )
        if target_format and "train" in datasets:
            check_training_rows(
                sources[f"train_{kind}"], fields, datasets["train"].targets, target_format.label_set
            )
        if with_targets:
            warn_of_repeated_texts({name.split("_")[0]: source for name, source in sources.items()}, whole)
        label_set = target_format.label_set if target_format else None
        if label_set is None and labels is not None:  # only texts to predict
            label_set = LabelSet(tuple(labels), multi_label is not False)
        datamodule = cls(
            *[datasets.get(split) for split in SPLITS],
            label_set=label_set,
            input_field=input_field,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        named = kind in ("file", "export_json")
        datamodule.files = {name: inputs[name] for name in sources if named or isinstance(inputs[name], str)}
        return datamodule

    @property
    def labels(self) -> list[str] | None:
        """The label names in the order of the columns; None if there are only texts to predict."""
        return None if self.label_set is None else list(self.label_set.names)

    @property
    def num_classes(self) -> int | None:
        """The number of labels."""
        return None if self.label_set is None else len(self.label_set)

    @property
    def multi_label(self) -> bool | None:
        """Whether any number of labels may apply to a text."""
        return None if self.label_set is None else self.label_set.multi_label

    def train_dataloader(self) -> Any:
        """Return the batches of an epoch: the model's own if it makes them, else shuffled rows."""
        dataset = self._split("train")
        model = getattr(self.trainer, "lightning_module", None)
        if hasattr(model, "train_batches"):
            return model.train_batches(dataset, self.seed)  # type: ignore[union-attr]
        return self._loader(dataset, torch.Generator().manual_seed(self.seed))

    def val_dataloader(self) -> Any:
        """Return the validation rows in order; `[]` if there are none."""
        return [] if self.val_dataset is None else self._in_order(self.val_dataset)

    def test_dataloader(self) -> Any:
        """Return the test rows in order."""
        return self._in_order(self._split("test"))

    def predict_dataloader(self) -> Any:
        """Return the rows to predict, in order."""
        return self._in_order(self._split("predict"))

    def _split(self, split: str) -> TextDataset:
        dataset: TextDataset | None = getattr(self, f"{split}_dataset")
        if dataset is None:
            raise FlashError(
                f"this datamodule has no {split} rows; pass {split}_file=, {split}_data= or the like"
            )
        return dataset

    def _in_order(self, dataset: TextDataset) -> Any:
        """Return batches of rows in order.

        With several devices or a prediction writer, Lightning needs a `DataLoader` of torch. Otherwise `RowBatches` avoids
        Lightning's advice to use worker processes.
        """
        trainer: Any = self.trainer
        writers = [one for one in getattr(trainer, "callbacks", []) if isinstance(one, BasePredictionWriter)]
        if writers or getattr(trainer, "world_size", 1) > 1:
            return self._loader(dataset)
        return RowBatches(dataset, self.batch_size)

    def _loader(self, dataset: TextDataset, generator: torch.Generator | None = None) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=generator is not None,
            generator=generator,
            collate_fn=cast(Any, dict),
        )

    def __str__(self) -> str:
        """Return the `repr`, instead of Lightning's list of loaders."""
        return repr(self)

    def __repr__(self) -> str:
        """Return sizes and label counts of each split."""
        kind = "no labels"
        if self.label_set is not None:
            kind = f"{len(self.label_set):,} label{'s' * (len(self.label_set) != 1)}"
            kind += ", multi-label" if self.multi_label else ", single-label"
        lines = [f"TextClassificationData: {kind}, batch_size={self.batch_size}"]
        for split in SPLITS:
            dataset = getattr(self, f"{split}_dataset")
            if dataset is not None:
                lines.extend(describe(split, len(dataset), dataset.targets, self.labels or []))
        return "\n".join(lines)
