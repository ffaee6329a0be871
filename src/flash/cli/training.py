"""What `flash text_classification` does: check the options, train on one source, print the table, save the model.

Options of the model and the trainer come before the source, those of the data after it, as in Lightning Flash.
"""

import logging
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.callbacks import Checkpoint, ProgressBar

from flash.cli import choices, components, note, options, saving
from flash.cli.help import READ
from flash.cli.hints import closing_words
from flash.cli.saving import TOXIC_FILE
from flash.cli.termination import Terminated
from flash.cli.wording import as_options
from flash.core.data.utils import download_data
from flash.core.errors import FlashError, unknown_name
from flash.core.launch import rank
from flash.text.classification.data import TextClassificationData
from flash.text.classification.model import TextClassifier, is_encoder
from flash.text.classification.sample import LABELS, sample_table
from flash.training.last_good import KeptFile, free_file
from flash.training.trainer import Trainer

TOXIC_URL = "https://pl-flash-data.s3.amazonaws.com/jigsaw_toxic_comments.zip"
HELD_OUT = 0.1  # of the training rows, where the user named no validation rows
NOISE = (
    "\nDetected KeyboardInterrupt",
    "GPU available",
    "TPU available",
    "`Trainer.fit` stopped",
    "HPU available",
)


def from_sample(
    rows: int = 3000, val_split: float | int | None = None, batch_size: int = 32, seed: int = 0
) -> TextClassificationData:
    """Synthetic comments; needs no file and no network.

    Args:
        rows: number of comments to generate.
        val_split: fraction or number of rows to hold out for validation.
        batch_size: rows per batch.
        seed: random seed of the comments and of the split.
    """
    table = sample_table(rows, seed)
    targets = list(zip(*(table[label].to_pylist() for label in LABELS), strict=True))
    return TextClassificationData.from_lists(
        train_data=table["comment_text"].to_pylist(),
        train_targets=[list(map(float, row)) for row in targets],
        labels=list(LABELS),
        multi_label=True,
        val_split=val_split,
        batch_size=batch_size,
        seed=seed,
    )


def from_toxic(
    val_split: float | int | None = None, batch_size: int = 32, seed: int = 0
) -> TextClassificationData:
    """The Jigsaw toxic comments, downloaded unless in data/.

    Args:
        val_split: fraction or number of rows to hold out for validation.
        batch_size: rows per batch.
        seed: random seed of the split.
    """
    if not Path(TOXIC_FILE).exists():
        try:
            download_data(TOXIC_URL, "data/")
        except FlashError as error:
            raise FlashError(
                f"the toxic comments could not be downloaded ({error}); put the challenge's train.csv at "
                f"{TOXIC_FILE}, or try: flash text_classification from_sample, which needs no network"
            ) from error
    return TextClassificationData.from_csv(
        "comment_text",
        list(LABELS),
        train_file=TOXIC_FILE,
        val_split=val_split,
        batch_size=batch_size,
        seed=seed,
    )


SOURCES: dict[str, Any] = {
    "from_sample": from_sample,
    "from_toxic": from_toxic,
    **{name: getattr(TextClassificationData, name) for name in READ},
}
"""What makes the data of each subcommand."""


def _for_the_command_line(record: logging.LogRecord) -> bool:
    record.msg, record.args = as_options(record.getMessage()), ()
    return not record.msg.startswith(NOISE)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Leave out what Lightning says of itself; what the model and the data have to say stays, in terms of options."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    log.addFilter(_for_the_command_line)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        log.removeFilter(_for_the_command_line)


@_quiet_lightning()
def train(argv: list[str]) -> int:
    """Train, print the table, save; returns the exit code."""
    argv = options.with_current_names(argv)
    parser, given = options.parse(SOURCES, argv)
    linear = not is_encoder(given.model.backbone)
    if linear and rank() > 0:
        return 0  # it trains in one process, and torchrun or SLURM started several
    config = saving.check(given)  # before the training whose result it is to hold
    strategy = choices.check(given, argv)  # and before the data are read
    kept = last_good_file(given.output, given.ckpt_path, given.source)
    trainer = make_trainer(components.build(parser, given), one_device=linear)
    trainer.kept_file = kept
    datamodule = load_data(given)
    if rank() == 0:
        synthetic = "Synthetic comments, generated by this library from its own templates:\n"
        print(f"{synthetic if given.source == 'from_sample' else ''}{datamodule}")
    chosen = choices.model_options(given)
    model = TextClassifier(labels=datamodule.labels, multi_label=bool(datamodule.multi_label), **chosen)
    try:
        trainer.finetune(model, datamodule=datamodule, strategy=strategy, ckpt_path=given.ckpt_path)
    except Terminated:
        raise
    except SystemExit:
        if trainer.interrupted:  # Lightning turns Ctrl-C into an exit of its own
            raise KeyboardInterrupt from None
        raise
    if datamodule.test_dataset is not None:
        trainer.test(model, datamodule=datamodule)
    earlier = Path(given.output).is_file()
    given.ckpt_path = None  # of this run alone
    if given.trainer.precision == "auto" and model.automatic_optimization:
        given.trainer.precision = str(trainer.precision)  # a rerun computes as this one did, on any machine
    written = parser.dump(components.as_saved(given))
    saving.save(lambda path: trainer.save_checkpoint(path, half=given.half), given.output, written)
    if rank() > 0:
        return 0
    kept.path.unlink(missing_ok=True)
    if earlier:
        note(f"the earlier {given.output} is replaced")
    toxic = {"train_file": TOXIC_FILE, "input_field": "comment_text"} if given.source == "from_toxic" else {}
    print(closing_words(given.output, config, given.source, {**given[given.source], **toxic}, model.labels))
    return 0


def make_trainer(arguments: dict[str, Any], *, one_device: bool) -> Trainer:
    """The trainer: unless the user chose otherwise, a bar only on a terminal, and checkpoints only of callbacks.

    Args:
        arguments: of the trainer.
        one_device: whether the backbone works on one device, which then is the CPU unless the user chose otherwise.

    Raises:
        FlashError: there are several devices for a backbone that works on one.
    """
    if arguments["enable_progress_bar"] is None:
        arguments["enable_progress_bar"] = sys.stdout.isatty() or components.has(arguments, ProgressBar)
    if arguments["enable_checkpointing"] is None:
        arguments["enable_checkpointing"] = components.has(arguments, Checkpoint)
    if one_device and (arguments["devices"], arguments["strategy"]) == ("auto", "auto"):
        arguments["devices"] = 1
        if arguments["accelerator"] == "auto":
            arguments["accelerator"] = "cpu"
    try:
        trainer = Trainer(**arguments)
    except (ValueError, TypeError) as error:  # Lightning's own, of values that do not fit
        if isinstance(error, FlashError):
            raise
        raise FlashError(_trainer_mistake(arguments, str(error))) from error
    if one_device and trainer.num_devices * trainer.num_nodes > 1:
        raise FlashError(
            f"the linear backbone works on one device, and the trainer has {trainer.num_devices * trainer.num_nodes}; "
            "leave out --trainer.devices, --trainer.num_nodes and --trainer.strategy"
        )
    return trainer


def _trainer_mistake(arguments: dict[str, Any], message: str) -> str:
    """Lightning's words for an option of the trainer that cannot be, in one sentence."""
    known = components.strategy_names()
    if "invalid strategy name" in message:
        return unknown_name("strategy", str(arguments["strategy"]), known)
    if accelerators := re.search(r"invalid accelerator name.*Available names are: ([\w, ]+)", message):
        return unknown_name("accelerator", str(arguments["accelerator"]), accelerators[1].split(", "))
    if "`devices`" in message:
        return f"--trainer.devices {arguments['devices']} is not understood: {message.strip().rstrip('.')}"
    return f"the trainer's options do not fit together: {' '.join(message.split()).rstrip('.')}"


def last_good_file(output: str, ckpt_path: str | None, source: str) -> KeptFile:
    """Where a training that is stopped is kept: where the one is that it goes on from, else where no other is.

    Raises:
        FlashError: there is no checkpoint to go on from.
    """
    wanted = saving.config_path(output).with_suffix(".last-good.pt")
    path = free_file(wanted)
    if ckpt_path is not None:
        earlier = Path(ckpt_path)
        if "://" not in ckpt_path and not earlier.is_file():
            raise FlashError(f"--ckpt_path {ckpt_path} is no file; leave it out to train from the start")
        if earlier.resolve().parent == wanted.resolve().parent and earlier.name.startswith(wanted.stem):
            path = earlier
    elif path != wanted:
        note(
            f"{wanted} is of a training that was stopped; --ckpt_path {shlex.quote(str(wanted))} goes on from it"
        )
    name = shlex.quote(str(path))
    return KeptFile(
        path,
        f"to go on from it, type the same with --ckpt_path {name} before {source}; flash predict takes it as it is",
    )


def load_data(given: Namespace) -> TextClassificationData:
    """The rows of the source that was named, a tenth of them held out unless the user chose otherwise."""
    keywords = dict(given[given.source])
    named = [name for name in keywords if name.startswith("val_") and keywords[name] is not None]
    if not named and "val_split" in keywords:
        keywords["val_split"] = HELD_OUT
    if keywords.get("val_split") == 0:
        keywords["val_split"] = None
    datamodule: TextClassificationData = SOURCES[given.source](**keywords)
    return datamodule
