"""Load the configuration, tokenizer, weights and pooling of a pretrained encoder's folder.

Problems with these files are reported here, in one sentence with advice. Configuration and tokenizer can also be
converted to plain values for the model file, and back. torch and transformers are imported on use.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from flash.core.errors import FlashError, MissingExtraError

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
OLD_LAYOUT = "0_Transformer/"  # folder of the encoder in early versions of sentence-transformers
NOT_KEPT = {
    # not saved in a model file: how to compute, and entries that would download or run something
    *("_name_or_path", "attn_implementation", "_attn_implementation", "_experts_implementation"),
    *("auto_map", "dtype", "torch_dtype", "quantization_config", "transformers_version"),
}
SENTENCE_POOLING = {  # sentence-transformers' names
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean",  # differs from the mean only by a factor, which the new head learns
    "lasttoken": "last",
}


def encoder_folder(folder: Path, name: str | Path) -> Path:
    """Return the folder of the encoder's files: a subfolder for early sentence-transformers, else the folder itself.

    Raises:
        FlashError: the folder has no configuration or no weights.
    """
    files = folder
    if not (folder / "config.json").is_file() and (folder / OLD_LAYOUT).is_dir():
        files = folder / OLD_LAYOUT
    holds = ", ".join(sorted(path.name for path in files.iterdir())[:20]) or "nothing"
    if not (files / "config.json").is_file():
        raise FlashError(
            f"the backbone {str(name)!r} has no config.json (it holds: {holds}); give the folder or id of a "
            "transformers model, as save_pretrained writes it"
        )
    if not any((files / file).is_file() for file in WEIGHTS):
        raise FlashError(
            f"the backbone {str(name)!r} has no weights (it holds: {holds}); expected model.safetensors or "
            "pytorch_model.bin"
        )
    return files


def load_config(files: Path, name: str | Path, trust_remote_code: bool) -> Any:
    """Load the model's configuration.

    Raises:
        FlashError: the configuration is damaged, unknown to this version of transformers, or needs code that is not
            trusted.
    """
    from transformers import AutoConfig

    try:
        stored = json.loads((files / "config.json").read_text("utf-8"))
        kind = stored.get("model_type") if isinstance(stored, dict) else None
    except ValueError as error:
        raise FlashError(
            f"the config.json of {str(name)!r} is damaged: {first_line(error)}; copy or download it again"
        ) from error
    if not isinstance(kind, str):
        raise FlashError(
            f"the config.json of {str(name)!r} does not say which architecture it is for (model_type is {kind!r}); "
            "give a transformers model"
        )
    if "auto_map" in stored and not trust_remote_code and not _is_known(kind):
        raise FlashError(
            f"the backbone {str(name)!r} has an architecture of its own ({kind!r}), which comes as Python code; read "
            "it, and if you trust it, set trust_remote_code=True"
        )
    try:
        return AutoConfig.from_pretrained(files, trust_remote_code=trust_remote_code)
    except Exception as error:
        if not _is_known(kind):
            import transformers

            raise FlashError(
                f"transformers {transformers.__version__} does not know the architecture {kind!r} of {str(name)!r}; "
                "type: pip install --upgrade transformers"
            ) from error
        raise FlashError(f"the config.json of {str(name)!r} cannot be used: {first_line(error)}") from error


def _is_known(model_type: str) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING


def load_tokenizer(files: Path, name: str | Path, trust_remote_code: bool) -> Any:
    """Load the model's fast tokenizer, with a pad token and without truncation and padding.

    Raises:
        FlashError: there is no tokenizer, it is not a fast one, or it has no pad token.
        MissingExtraError: a package that reads it is not installed.
    """
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(files, trust_remote_code=trust_remote_code)
    except Exception as error:
        _check_sentencepiece(files, name)
        raise FlashError(
            f"the tokenizer of {str(name)!r} cannot be loaded: {first_line(error)}; if a package is missing, install "
            "it, or save the tokenizer as tokenizer.json"
        ) from error
    if not tokenizer.is_fast:
        raise FlashError(
            f"the tokenizer of {str(name)!r} is a {type(tokenizer).__name__}, of which there is no fast version, and "
            "only these tokenise in parallel; choose a backbone with a tokenizer.json"
        )
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):  # transformers' empty default tokenizer
        raise FlashError(
            f"the backbone {str(name)!r} has no tokenizer; expected a tokenizer.json or the vocabulary beside the "
            "weights: save it there with tokenizer.save_pretrained"
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise FlashError(
                f"the tokenizer of {str(name)!r} has neither a pad token nor an end-of-text token, so texts of "
                "different lengths make no batch; add a pad token and save the folder again"
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"  # batches are always padded on the right here
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def _check_sentencepiece(files: Path, name: str | Path) -> None:
    """Report missing packages for a SentencePiece vocabulary, for which transformers names the wrong package.

    Raises:
        MissingExtraError: the tokenizer is a SentencePiece vocabulary, and its packages are not installed.
    """
    models = [path.name for path in files.glob("*.model")]
    if not models or (files / "tokenizer.json").is_file():
        return
    try:
        import_module("sentencepiece")
        import_module("google.protobuf")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the tokenizer of {str(name)!r} is a vocabulary of SentencePiece ({models[0]}) without a tokenizer.json, "
            "which needs two more packages; type: pip install sentencepiece protobuf"
        ) from error


def load_model(
    auto_class: Any,
    files: Path,
    name: str | Path,
    config: Any,
    trust_remote_code: bool,
    *,
    new_rows: int | None = None,
) -> Any:
    """Load a model in float32, and return it with the names of the tensors that the files lack.

    Tensors that should have `new_rows` rows but have another number, because they belong to a head for other labels,
    count as lacking.

    Raises:
        FlashError: the weights are damaged, or their shapes do not match the configuration.
    """
    import torch

    try:
        with quiet():
            model, report = auto_class.from_pretrained(
                files,
                config=config,
                dtype=torch.float32,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below
            )
    except Exception as error:  # of safetensors, pickle, torch or the operating system
        raise FlashError(
            f"the weights of {str(name)!r} cannot be loaded: {first_line(error)}; copy or download them again"
        ) from error
    other_head = {key for key, _, expected in report["mismatched_keys"] if expected[0] == new_rows}
    misfits = sorted(each for each in report["mismatched_keys"] if each[0] not in other_head)
    if misfits:
        tensor, found, expected = misfits[0]
        raise FlashError(
            f"the weights of {str(name)!r} do not fit its config.json: {tensor} is {tuple(found)}, expected "
            f"{tuple(expected)}; copy or download both again"
        )
    return model, set(report["missing_keys"]) | other_head


def check_complete(missing: set[str], name: str | Path) -> None:
    """Check that no tensors are missing: they would be random.

    Raises:
        FlashError: `missing` is not empty; names some of them.
    """
    if missing:
        shown = ", ".join(sorted(missing)[:3])
        raise FlashError(
            f"the weights of {str(name)!r} lack {len(missing)} tensors of the model, such as {shown}; expected all of "
            "them: copy or download them again"
        )


def sentence_pooling(folder: Path, name: str | Path) -> str | None:
    """Return the pooling of a sentence-transformers folder, a key of `POOLINGS`; None for any other folder.

    Modules after the pooling (Normalize, Dense) are for comparing sentences, and are ignored.

    Raises:
        FlashError: the pooling is damaged or not supported.
    """
    if not (folder / "modules.json").is_file():
        return None
    try:
        modules = json.loads((folder / "modules.json").read_text("utf-8"))
        paths = [m["path"] for m in modules if m["type"].endswith(".Pooling")]
        if not paths:
            return None
        stored = json.loads((folder / paths[0] / "config.json").read_text("utf-8"))
        modes = _pooling_modes(stored)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise FlashError(
            f"the sentence-transformers pooling of {str(name)!r} cannot be read: {first_line(error)}; copy it again, or "
            "set pooling='mean'"
        ) from error
    if len(modes) != 1 or modes[0] not in SENTENCE_POOLING:
        raise FlashError(
            f"the sentence-transformers pooling of {str(name)!r} is {' and '.join(map(str, modes)) or 'none'}; only "
            f"{', '.join(SENTENCE_POOLING)} can be read: set pooling='mean' or another"
        )
    return SENTENCE_POOLING[modes[0]]


def _pooling_modes(stored: Mapping[str, Any]) -> list[str]:
    """Return the pooling modes; newer folders have `"pooling_mode": "mean"`, older ones a flag for each mode."""
    if "pooling_mode" in stored:
        return (
            [stored["pooling_mode"]] if isinstance(stored["pooling_mode"], str) else [*stored["pooling_mode"]]
        )
    prefix = "pooling_mode_"
    flags = [key.removeprefix(prefix) for key, value in stored.items() if key.startswith(prefix) and value]
    short = {"cls_token": "cls", "max_tokens": "max", "mean_tokens": "mean"}
    return [short.get(flag, flag) for flag in flags]


def tokenizer_content(tokenizer: Any) -> dict[str, Any]:
    """Convert a fast tokenizer to plain values, without the truncation and padding of its last use."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return {
        "file": backend.to_str(),  # tokenizer.json
        "special_tokens": {key: str(token) for key, token in tokenizer.special_tokens_map.items()},
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "model_max_length": tokenizer.model_max_length if tokenizer.model_max_length < 2**31 else None,
    }


def tokenizer_from(content: Mapping[str, Any]) -> Any:
    """Restore the tokenizer of `tokenizer_content`."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    make: Any = PreTrainedTokenizerFast
    special = {key: token for key, token in content["special_tokens"].items() if key.endswith("_token")}
    truncation_side = content.get("truncation_side", "right")  # missing in older files
    options = {"padding_side": content["padding_side"], "truncation_side": truncation_side, **special}
    if content["model_max_length"] is not None:
        options["model_max_length"] = content["model_max_length"]
    return make(tokenizer_object=Tokenizer.from_str(content["file"]), **options)


def config_content(config: Any) -> dict[str, Any]:
    """Convert a model's configuration to plain values."""
    stored = json.loads(config.to_json_string(use_diff=False))
    return {key: value for key, value in stored.items() if key not in NOT_KEPT}


def config_from(content: Mapping[str, Any]) -> Any:
    """Restore the configuration of `config_content`; entries that would run or download something are ignored."""
    from transformers import AutoConfig

    kept = {key: value for key, value in content.items() if key not in NOT_KEPT}
    return AutoConfig.for_model(**kept)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress transformers' report on loaded tensors and its progress bar; this module checks the tensors itself."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging as untyped

    logging: Any = untyped

    level, bar, hub_off = (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        are_progress_bars_disabled(),
    )
    logging.set_verbosity_error()
    if bar:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
        if bar and hub_off:  # transformers' switch changes the hub's too
            disable_progress_bars()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[
        :300
    ]
