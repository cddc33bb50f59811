"""Loading from a folder or the Hugging Face hub: one line for whatever goes wrong."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from fairhuman.errors import FairHumanError, ModelError

_UNREACHABLE = re.compile(
    r"connect|not cached locally|local_files_only|offline|LocalEntryNotFound|Max retries|timed? ?out|name resolution"
    r"|client has been closed",
    re.IGNORECASE,
)
_ADVICE = re.compile(
    r"local_files_only|stacktrace|traceback|make sure|please |check ?out|see how to|more (info|details)|from_tf"
    r"|open an issue|raise an issue|https?://|if you were trying|pass |huggingface-cli|hf auth|token=",
    re.IGNORECASE,
)
_LONGEST = 300
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@contextmanager
def loading(name: str, place: str, expected: str = "") -> Iterator[None]:
    """Turn whatever a library raises while it loads `place` into one line.

    The line says what was looked for, what is wrong and what to do. Progress bars of loading from disk are off; for a
    hub id they stay, with those of downloads.

    Args:
        name: what is loaded, as the user knows it, for messages, such as `model 'OWNER/NAME'`.
        place: the folder, file or hub id.
        expected: what should be there, in words.

    Raises:
        ModelError: loading failed.
    """
    try:
        with without_bars() if Path(place).exists() else nullcontext():
            yield
    except FairHumanError:
        raise
    except Exception as failed:  # libraries raise any class: their own, the parsers', the connections'
        raise ModelError(f"{name}: {failure(failed, place, expected)}") from failed


def refuse_pickles(name: str, place: str | Path) -> None:
    """Check that the weights at `place` aren't pickles alone, which may run code when they are loaded.

    Pickles beside safetensors are fine: nothing reads them. What isn't a folder is left to whoever loads it.

    Raises:
        ModelError: there are pickles and no safetensors; names the first, and `name`, which is for messages.
    """
    folder = Path(place)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    pickles = [path for path in files if path.suffix.lower() in _PICKLES]
    if pickles and not any(path.suffix == ".safetensors" for path in files):
        raise ModelError(
            f"{name}: {pickles[0]} is a pickle, which may run code when it is loaded, and no .safetensors file lies "
            "beside it; take a copy of the model with safetensors, or convert it where you trust it"
        )


def variant_in(folder: Path) -> str | None:
    """Return `fp16` if all weights in a folder have file names with `.fp16`, else None: the plain files."""
    names = [path.name for path in folder.glob("*.safetensors")]
    return "fp16" if names and all(".fp16" in name for name in names) else None


def failure(error: BaseException, place: str, expected: str = "") -> str:
    """Return in one line why loading `place` failed, without a library's advice."""
    chain = list(_chain(error))
    kinds = {type(one).__name__ for one in chain}
    remote = not Path(place).exists()
    looked = f"expected {expected}, but " if expected else ""
    if remote and kinds & {"GatedRepoError"}:
        return f"the hub asks for a login and for the owner's consent for {place}; log in with `hf auth login`"
    if remote and kinds & {"RepositoryNotFoundError", "RevisionNotFoundError"}:
        return f"{looked}the hub has no {place}, or it is private; check the name, or log in with `hf auth login`"
    if remote and kinds & {"HFValidationError"}:
        return f"{looked}{place!r} is neither a local path nor a hub id OWNER/NAME"
    if remote and any(_UNREACHABLE.search(f"{type(one).__name__} {one}") for one in chain):
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        why = "HF_HUB_OFFLINE is set" if offline else "huggingface.co can't be reached"
        what = "unset HF_HUB_OFFLINE to download it" if offline else "connect to download it once"
        return f"{looked}{place} isn't in the hub's local cache and {why}; give a local path, or {what}"
    return f"{looked}loading failed: {plain(error)}"


def plain(error: BaseException) -> str:
    """Return an error's message in one line, without the sentences that are a library's advice."""
    text = " ".join(str(error).split()) or type(error).__name__
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z`'])", text)
    kept = [sentence for sentence in sentences if not _ADVICE.search(sentence)]
    return " ".join(kept or sentences[:1])[:_LONGEST].rstrip(". ")


@contextmanager
def without_bars() -> Iterator[None]:
    """Switch off the progress bars that diffusers and transformers show while they read or write files of weights.

    The two are looked for among the imported modules, as modules of settings use this one and mustn't import them.
    """
    modules = (sys.modules.get(f"{name}.utils.logging") for name in ("diffusers", "transformers"))
    shown = [module for module in modules if module is not None and module.is_progress_bar_enabled()]
    for module in shown:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in shown:
            module.enable_progress_bar()


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        yield now
        now = now.__cause__ or now.__context__
