"""The help of `flash text_classification` and of its sources, as tables of options in the words of the command line.

Imports only the standard library: the parser itself is made of signatures that need torch and Lightning, which take
seconds to import. That both know the same options, with the same defaults, is a test's business.
"""

import textwrap
from collections.abc import Iterable
from typing import Any, NamedTuple

WIDTH = 80
PROGRAM = "flash text_classification"
USAGE = f"{PROGRAM} [model and trainer] SOURCE [data]"


class Option(NamedTuple):
    """An option: what stands for its value (nothing for a switch), words, and the default unless that is no value."""

    name: str
    value: str
    words: str
    default: Any = None
    required: bool = False


class Section(NamedTuple):
    """Options under a title, and what there is to say after them."""

    title: str
    options: tuple[Option, ...]
    remarks: str = ""


EXAMPLES = f"""Train a classifier on one source of texts, print how good it is per label, and
save it.

  {PROGRAM} from_sample
  {PROGRAM} from_csv --input_field comment_text \\
      --target_fields toxic obscene --train_file train.csv --val_split 0.1
  {PROGRAM} --model.backbone FOLDER --strategy lora from_csv ...
  {PROGRAM} --output model.pt --model.folds 0 from_csv --help

Options of the model and the trainer come before the source, those of the data
after it; brackets at the end of a line hold a default. The sources:
"""

SOURCES = {
    "from_sample": "synthetic comments made here; needs no file and no network",
    "from_toxic": "the Jigsaw toxic comments, downloaded unless they are there",
    "from_csv": "comma- or tab-separated files (.csv, .tsv, .tab, .txt)",
    "from_json": "JSON lines, an array of objects, or one under a field",
    "from_fasttext": "fastText's files, labels as __label__NAME before the text",
    "from_parquet": "Parquet files",
    "from_labelstudio": "Label Studio's exports, JSON or JSON-MIN",
    "from_hf_datasets": "Hugging Face data sets, from the hub or a folder",
}
"""What a classifier can be trained on."""

STRATEGIES = r"""
--strategy, which layers of an encoder train (the linear backbone has none):
  no_freeze                               all (the default)
  freeze                                  the head alone; the encoder runs once
  '["freeze_unfreeze", 1]'                the head; all from epoch 1 on
  '["unfreeze_milestones", [[1, 3], 2]]'  the head; from epoch 1 on the last 2
                                          layers too; from epoch 3 on all
  lora                                    the head, and small matrices beside
                                          all layers; '["lora", 4]': of rank 4
  '["lora", {"rank": 8, "alpha": 16, "dropout": 0.05, "targets": "all-linear"}]'
                                          or other numbers; or targets a list
                                          of names of layers
"""

MODEL_FIRST = """
Options of the model, such as an encoder's folder, and of the trainer stand
before {source}; see {program} --help.""".replace("{program}", PROGRAM)

COMMAND = Section(
    "options",
    (
        Option("help", "", "this text; after a source, the options of its data"),
        Option("config", "FILE", "a YAML file of options, as --print_config prints them"),
        Option("print_config", "", "print all options and their values, and end"),
        Option(
            "output",
            "FILE",
            "where to save the model, in place of an earlier one",
            "text_classification_model.pt",
        ),
        Option("half", "BOOL", "save an encoder's weights in 16 bits: half the size, and no resuming", False),
        Option("strategy", "WHAT", "of finetuning: see the end", "no_freeze"),
        Option("ckpt_path", "FILE", "go on from it: of a training that was stopped"),
    ),
)

CLASSIFIER = Section(
    "the classifier",
    (
        Option(
            "model.backbone",
            "NAME",
            "what turns texts into scores: linear (n-grams, nothing to download), or an encoder: a folder, or a "
            "Hugging Face id such as unitary/toxic-bert",
            "linear",
        ),
        Option(
            "model.thresholds",
            "T",
            "probability from which on a label applies: a number, a list, '{\"toxic\": 0.3}', or auto: chosen by "
            "cross-validation on the training rows, for an encoder on the validation rows",
            "auto",
        ),
        Option(
            "model.threshold_objective",
            "WHAT",
            "what auto chooses thresholds for: macro_f1, micro_f1, macro_f2 (or another beta), 'precision>=0.9' or "
            "'recall>=0.9'; one for all labels, a list, or '{\"toxic\": \"recall>=0.9\"}'",
            "macro_f1",
        ),
        Option(
            "model.pos_weight",
            "N",
            "how much more a text with a label counts for it in training: a number, a list, '{\"toxic\": 3}', or "
            "balanced: as many times as there are more texts without it; unless given, no more",
        ),
    ),
)

LINEAR = Section(
    "the linear backbone",
    (
        Option("model.word_ngrams", "N", "n-grams of one word up to N words; 0 for none", 2),
        Option("model.char_ngrams", "PAIR", "shortest and longest; '[0, 0]' for none", (2, 5)),
        Option("model.buckets", "N", "for n-grams; a power of two", 4194304),
        Option("model.word_share", "SHARE", "of words, the rest being of characters", "auto"),
        Option("model.length_slope", "N", "of a text's own length in its norm; 1 for all", 0.8),
        Option("model.min_texts", "N", "training texts that make an n-gram a feature", 3),
        Option("model.C", "N", "a larger C regularises less; or a list", "auto"),
        Option("model.label_weight", "N", "multiplies C: one number, or a list", 1.0),
        Option("model.folds", "N", "of the cross-validation; 0 for none", 3),
        Option("model.bias", "N", "of the constant feature; 0 for no bias", 1.0),
        Option("model.tolerance", "N", "the largest gradient when the fit ends", 0.3),
        Option("model.max_passes", "N", "over the training rows, at most", 100),
        Option("model.quantize", "BOOL", "whether weights end in 8 bits", True),
    ),
)

ENCODER = Section(
    "an encoder",
    (
        Option("model.max_length", "N", "tokens of a text, or of a window of it", 128),
        Option("model.long_text", "WHAT", "truncate; window reads it whole", "truncate"),
        Option("model.window_overlap", "SHARE", "of max_length, of two windows", 0.25),
        Option("model.window_pooling", "WHAT", "of windows' logits: max, mean", "max"),
        Option("model.pooling", "WHAT", "how a new head sees a text: see below", "auto"),
        Option("model.dropout", "SHARE", "of features, before a new head", 0.1),
        Option("model.revision", "NAME", "a branch, tag or commit of a hub id"),
        Option("model.trust_remote_code", "BOOL", "run code that comes with it", False),
        Option("model.loss_fn", "NAME", "see below; unless given, cross-entropy"),
        Option("model.optimizer", "NAME", "one of torch's; unless given, AdamW"),
        Option("model.learning_rate", "N", "unless given, as suits the strategy"),
        Option("model.layer_decay", "N", "times the rate, each layer down", 1.0),
        Option("model.lr_scheduler", "NAME", "linear (unless given), cosine, constant"),
        Option("model.warmup", "SHARE", "of all steps, in which the rate rises", 0.06),
    ),
    "  Poolings: mean, cls, max, last; auto: what suits the encoder; model: a whole\n"
    "  head of its architecture, such as can be exported to transformers.\n"
    "  Losses: binary_cross_entropy, focal, asymmetric, distribution_balanced; of one\n"
    "  label, cross_entropy. An lr_scheduler may also be one of torch's, with its\n"
    '  arguments: \'["StepLR", {"step_size": 1}]\'.',
)

TRAINER = Section(
    "the trainer (all of Lightning's arguments are taken, as --trainer.NAME)",
    (
        Option("trainer.accelerator", "WHAT", "cpu, gpu or auto", "auto"),
        Option("trainer.devices", "N", "how many; the linear backbone works on one", "auto"),
        Option("trainer.precision", "WHAT", "of an encoder: 32, bf16-mixed ..., or auto"),
        Option("trainer.max_epochs", "N", "at most; the linear backbone ends after one", 3),
        Option("trainer.logger", "WHAT", "true, or a class, for the scores: see below", False),
        Option("trainer.callbacks", "CLASS", "such as EarlyStopping: see below"),
        Option("trainer.enable_progress_bar", "BOOL", "unless given, only on a terminal"),
        Option("trainer.default_root_dir", "FOLDER", "of logs; unless given, this one"),
    ),
    "  Loggers: CSVLogger, TensorBoardLogger, WandbLogger, MLFlowLogger and others of\n"
    "  Lightning's; callbacks: EarlyStopping, ModelCheckpoint, Timer and others. The\n"
    "  options of a class follow its name, and + adds one more:\n"
    "    --trainer.logger CSVLogger --trainer.logger.save_dir logs\n"
    "    --trainer.logger WandbLogger --trainer.logger.offline true\n"
    "    --trainer.callbacks EarlyStopping --trainer.callbacks.monitor val_loss\n"
    "    --trainer.callbacks+ ModelCheckpoint --trainer.callbacks.save_last true\n"
    "  With true as the logger, scores go to lightning_logs as CSV.",
)

SECTIONS = (COMMAND, CLASSIFIER, LINEAR, ENCODER, TRAINER)

_LABELS = (
    Option("label_delimiter", "D", "between the names in one cell; a comma unless given"),
    Option("labels", "NAME ...", "the names in order; unless given, those of the training rows"),
    Option("num_classes", "N", "how many, where class indices have no names"),
    Option(
        "multi_label", "BOOL", "whether any number may apply; unless given, the target's structure decides"
    ),
    Option(
        "unknown_labels",
        "WHAT",
        "of labels that train lacks: error, or ignore them with a warning",
        "error",
    ),
    Option(
        "unknown_targets",
        "WHAT",
        "of targets that say that nothing is known (-1, blanks, NA): error; mask: they count nowhere; negative: the "
        "label does not apply",
        "error",
    ),
    Option("unknown_values", "VALUE ...", 'which targets do; unless given, -1, blanks ("") and NA'),
)
_SPLIT_WORDS = "the fraction (such as 0.1) or the number of training rows to hold out; 0 for none"
_SPLIT = Option(
    "val_split",
    "N",
    f"{_SPLIT_WORDS}; unless given, a tenth where there are no other validation rows",
)
_BATCH = Option("batch_size", "N", "rows a batch", 32)
_SEED = Option("seed", "N", "of the split and of the order of training rows", 0)
_LOADING = (
    *_LABELS,
    _SPLIT,
    _BATCH,
    Option("num_workers", "N", "taken for the sake of Flash's scripts; changes nothing", 0),
    _SEED,
)
_FILES = (
    Option("train_file", "FILE ...", "files, or a glob"),
    Option("val_file", "FILE ...", "the same, for validation"),
    Option("test_file", "FILE ...", "the same, for a test after training"),
    Option("predict_file", "FILE ...", "the same; only the texts are read"),
)
_FIELDS = (
    Option("input_field", "COLUMN ...", "the column of texts, or several: title body", required=True),
    Option("target_fields", "COLUMN ...", "the 0/1 columns, or the one of names"),
)

DATA: dict[str, tuple[Option, ...]] = {
    "from_sample": (
        Option("rows", "N", "how many comments to generate", 3000),
        Option("val_split", "N", _SPLIT_WORDS, 0.1),
        _BATCH,
        Option("seed", "N", "of the comments and of the split", 0),
    ),
    "from_toxic": (
        Option("val_split", "N", _SPLIT_WORDS, 0.1),
        _BATCH,
        Option("seed", "N", "of the split", 0),
    ),
    "from_csv": (
        *_FIELDS,
        *_FILES,
        Option(
            "delimiter", "D", "between cells; unless given, a comma or a tab by the ending and the header"
        ),
        Option("encoding", "NAME", "of the files, such as cp1252", "utf-8"),
        Option("quoting", "BOOL", "whether cells may stand in double quotes", True),
        Option("column_names", "NAME ...", "of files without a header: the columns, in order"),
        Option("sheet", "NAME", "of Excel files; the first unless given"),
        *_LOADING,
    ),
    "from_json": (*_FIELDS, *_FILES, Option("field", "KEY", "under which the array stands"), *_LOADING),
    "from_fasttext": (
        *_FILES,
        Option("label_prefix", "TEXT", "what a label begins with", "__label__"),
        *_LOADING,
    ),
    "from_parquet": (*_FIELDS, *_FILES, *_LOADING),
    "from_labelstudio": (
        Option("export_json", "FILE ...", "another name of --train_export_json"),
        Option("train_export_json", "FILE ...", "files, or a glob"),
        Option("val_export_json", "FILE ...", "the same, for validation"),
        Option("test_export_json", "FILE ...", "the same, for a test after training"),
        Option("predict_export_json", "FILE ...", "the same; only the texts are read"),
        Option("data_folder", "FOLDER", "taken for the sake of Flash's scripts, and not needed"),
        Option("input_field", "KEY ...", "of a task's text, or several; unless given, text or the only one"),
        Option("target_field", "NAME", "of the choices in the interface, where there are several"),
        Option("annotators", "WHICH", "where they differ: error, first, majority or union", "error"),
        *_LOADING,
    ),
    "from_hf_datasets": (
        *_FIELDS,
        Option("train_hf_dataset", "NAME", "a folder, or a name on the hub (split train)"),
        Option("val_hf_dataset", "NAME", "the same, for validation (split validation)"),
        Option("test_hf_dataset", "NAME", "the same, for a test after training (split test)"),
        Option("predict_hf_dataset", "NAME", "the same; only the texts are read (split test)"),
        *_LOADING,
    ),
}
"""The options of each source, in the order of its signature."""


def asked_source(words: list[str]) -> str | None:
    """Whose help a command line asks for: a source's, the command's (an empty text), or nobody's (None)."""
    place = next((index for index, word in enumerate(words) if word in ("-h", "--help")), None)
    if place is None:
        return None
    return next((word for word in words[:place] if word in SOURCES), "")


def help_text(source: str = "") -> str:
    """The help of the command, or of one of its sources."""
    if source:
        usage = USAGE.replace("SOURCE", source)
        summary = f"{SOURCES[source][0].upper()}{SOURCES[source][1:]}."
        data = _lines(Section("the data", DATA[source], MODEL_FIRST.format(source=source)))
        return "\n".join([f"usage: {usage}\n", summary, *data])
    column = max(map(len, SOURCES)) + 2
    sources = [f"  {name:{column}}{words}" for name, words in SOURCES.items()]
    parts = [f"usage: {USAGE}\n", EXAMPLES, *sources]
    for section in SECTIONS:
        parts += _lines(section)
    return "\n".join([*parts, STRATEGIES.rstrip()])


def _lines(section: Section) -> Iterable[str]:
    """A section's title and options, each in one line where that is wide enough."""
    left = [f"  --{option.name} {option.value}".rstrip() for option in section.options]
    column = max(map(len, left)) + 2
    yield f"\n{section.title}:"
    for start, option in zip(left, section.options, strict=True):
        words = textwrap.wrap(_described(option), WIDTH - column, break_on_hyphens=False)
        yield f"{start:{column}}{words[0]}"
        yield from (f"{'':{column}}{line}" for line in words[1:])
    if section.remarks:
        yield section.remarks


def _described(option: Option) -> str:
    if option.required:
        return f"{option.words} (required)"
    if option.default is None:
        return option.words
    default = str(option.default).lower() if isinstance(option.default, bool) else option.default
    shown = ", ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{option.words} [{shown}]"
