"""Find a pretrained encoder: a folder, or a hub id that is downloaded into the hub's usual cache.

Imports neither torch nor transformers.
"""

import os
import re
from pathlib import Path

from flash.core.errors import FlashError
from flash.core.extras import require
from flash.text.classification.backbones.encoder.loading import OLD_LAYOUT, WEIGHTS, first_line

SMALL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "modules.json",
    "*_Pooling/config.json",
)
SAFE_WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
OLD_WEIGHTS = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def find_files(name: str | Path, revision: str | None, trust_remote_code: bool) -> Path:
    """Return the folder of an encoder's files; files of a hub id are downloaded unless they are in the hub's cache.

    Args:
        name: a folder, or a hub id such as `unitary/toxic-bert`. A token, the cache, another endpoint and offline
            mode come from the hub's environment variables (HF_TOKEN, HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE).
        revision: a branch, tag or commit of a hub id; None for its main branch.
        trust_remote_code: whether to download Python files too.

    Raises:
        FlashError: there is no such folder or id, access is denied, or the hub cannot be reached.
    """
    text = str(name)
    folder = Path(text).expanduser()
    if text and folder.is_dir():
        if revision is not None:
            raise FlashError(
                f"backbone {text!r} is a folder, which has no revision {revision!r}; leave revision out"
            )
        return folder
    if text and folder.exists():
        raise FlashError(f"backbone {text!r} is a file; give the folder that holds it, with its config.json")
    if isinstance(name, Path) or text.startswith((".", "~", os.sep)) or not HUB_ID.fullmatch(text):
        raise FlashError(
            f"there is no folder {text!r}, and it is no hub id either; give an encoder's folder, or an id such as "
            "'unitary/toxic-bert'"
        )
    return _download(text, revision, trust_remote_code)


def _download(name: str, revision: str | None, trust_remote_code: bool) -> Path:
    require("transformers", "transformers")
    from huggingface_hub import snapshot_download

    small = [*SMALL_FILES, *(["*.py"] if trust_remote_code else [])]
    try:
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=both([*small, *SAFE_WEIGHTS]))
        )
        if not any(folder.rglob("model*.safetensors")):
            snapshot_download(name, revision=revision, allow_patterns=both([*small, *OLD_WEIGHTS]))
    except Exception as error:  # of httpx, requests, the hub or the operating system
        # a download by transformers counts as incomplete, but may contain all needed files
        partial = Path(getattr(error, "snapshot_path", os.devnull))
        if any((partial / file).is_file() for file in WEIGHTS) and (partial / "config.json").is_file():
            return partial
        raise FlashError(hub_failure(name, revision, error)) from error
    return folder


def both(patterns: list[str]) -> list[str]:
    """Return patterns for the current and the old layout of a repository."""
    return [*patterns, *(OLD_LAYOUT + pattern for pattern in patterns)]


def hub_failure(name: str, revision: str | None, error: BaseException) -> str:
    """Turn an error of `huggingface_hub` into a message with advice."""
    from huggingface_hub import constants, errors

    causes = [error]
    while cause := causes[-1].__cause__:
        causes.append(cause)
    status = next((r.status_code for e in causes if (r := getattr(e, "response", None)) is not None), None)
    page = f"{constants.ENDPOINT}/{name}"
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
        return (
            f"the hub does not give {name!r} to you, since access to it is on request; ask for it on {page}, then set "
            "HF_TOKEN to a token of your account or type: hf auth login"
        )
    if any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes) or status == 401:
        return (
            f"the hub {constants.ENDPOINT} shows no model {name!r}, and there is no folder of that name here; check the "
            "spelling, or, if the model is private, set HF_TOKEN or type: hf auth login"
        )
    if any(isinstance(cause, errors.RevisionNotFoundError) for cause in causes):
        return f"the hub's {name!r} has no revision {revision!r}; its branches and tags are listed on {page}"
    if status == 403:
        return f"the hub refuses {name!r} to the token in use (403); check on {page} that your account may read it"
    if constants.HF_HUB_OFFLINE:
        return (
            f"{name!r}{f' at revision {revision!r}' if revision else ''} is not, or not whole, in the hub's cache "
            f"{constants.HF_HUB_CACHE}, and offline mode is on; unset HF_HUB_OFFLINE, or give a folder"
        )
    if status is not None:
        return (
            f"the hub {constants.ENDPOINT} answered {status} for {name!r}; try again later, or give a folder"
        )
    system = next((e for e in causes if isinstance(e, OSError) and e.errno and e.filename), None)
    if system is not None:
        return f"{name!r} cannot be kept in the hub's cache: {system.filename}: {system.strerror}; free space or set HF_HOME"
    return (
        f"the hub {constants.ENDPOINT} cannot be reached for {name!r}, which its cache does not hold "
        f"({first_line(causes[-1])}); check the network, or give a folder"
    )
