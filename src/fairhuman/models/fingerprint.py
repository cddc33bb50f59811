"""Fingerprints of models, to notice another base, and of VAE and text encoders, for cache keys; sizes of encodings."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fairhuman.bases.base import base_class, base_of
from fairhuman.bases.names import BaseName, latent_shape
from fairhuman.bases.published import PUBLISHED
from fairhuman.errors import ModelError
from fairhuman.models.checkpoint_file import read_checkpoint
from fairhuman.models.locations import check_location, fetch_configurations, is_file, location_of, name_of
from fairhuman.models.settings import BaseSettings
from fairhuman.utils.digest import content_digest, file_digest
from fairhuman.utils.files import digest
from fairhuman.utils.parse import parse_json
from fairhuman.utils.shipped import RANDOM, SMALL

_PIECES, _PIECE = 64, 4096  # of a file, and bytes of each
# Configuration entries that don't affect a network's output.
_IGNORED = ("transformers_version", "dtype", "torch_dtype")


class EncodedSize(NamedTuple):
    """Shapes of the outputs of the VAE and the text encoders; of the longest caption."""

    factor: int  # pixels per latent cell and side
    channels: int
    tokens: int
    width: int  # of a token's embedding, in SDXL both encoders' concatenated
    pooled: int

    def latent_bytes(self, resolution: tuple[int, int]) -> int:
        """Return the bytes of a view's mean and standard deviation in float16."""
        height, width = (side // self.factor for side in resolution)
        return 2 * 2 * self.channels * height * width

    @property
    def text_bytes(self) -> int:
        """Bytes of a caption's embeddings in float16 or bfloat16."""
        return 2 * (self.tokens * self.width + self.pooled)


SDXL_SIZE = EncodedSize(factor=8, channels=4, tokens=77, width=2048, pooled=1280)


def encoded_size(model: str) -> EncodedSize:
    """Return the shapes of a model without loading it: from a folder's configurations, or SDXL's for a hub id.

    Raises:
        ModelError: a folder without readable configurations.
    """
    check_location(model, own_vae=True)
    if is_file(model):
        architecture = read_checkpoint(Path(model), model, own_vae=True).architecture
        if architecture == "sdxl":
            return SDXL_SIZE
        model = SMALL
    name = name_of(model)
    if name.flow:
        fetch_configurations(model)
    elif not Path(location_of(model)).exists():
        return SDXL_SIZE
    return _size_of_folder(name, location_of(model), model)


def _size_of_folder(name: BaseName, place: str, model: str) -> EncodedSize:
    base = base_class(name)
    if place in PUBLISHED:
        shape = base.shape(place)
        config, latents = shape.network.config, (shape.factor, shape.channels)
    else:
        try:
            config = parse_json((Path(place) / base.part / "config.json").read_text(encoding="utf-8"))
            latents = latent_shape(Path(place))
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"model {model!r}: expected config.json of vae and {base.part}, found {error}") from error
    try:
        shapes = base.text_shapes(config)
    except KeyError as error:
        raise ModelError(f"model {model!r}: expected {error} in the config.json of {base.part}") from error
    tokens, width = next(shape for shape in shapes.values() if len(shape) == 2)
    return EncodedSize(*latents, tokens, width, sum(shape[0] for shape in shapes.values() if len(shape) == 1))


def base_fingerprint(model: str, base: BaseSettings) -> str | None:
    """Return a hash of a model's weights, and of its VAE's if given apart; None if they aren't on this machine.

    It is `sampled_fingerprint`: whole files of 7 GB would take seconds at each start and at each checkpoint.
    """
    if model in RANDOM:
        return None
    return sampled_fingerprint(*(Path(location_of(place)) for place in (model, base.vae) if place is not None))


def weights_fingerprint(*places: Path) -> str | None:
    """Return the SHA-256 of a .safetensors file; of several, in the order of the places, that of their SHA-256s.

    A place may be a folder with such files. None if there are none.
    """
    digests = [_whole(file, (state := file.stat()).st_mtime_ns, state.st_size) for file in _weight_files(places)]
    return digests[0] if len(digests) == 1 else content_digest("".join(digests).encode()) if digests else None


def sampled_fingerprint(*places: Path) -> str | None:
    """Return a hash of .safetensors files, and of those in folders; None if there are none.

    Of each file, the header and 64 pieces of 4 KB, evenly spread, are hashed: enough to tell base models apart, and a
    fraction of a second for 7 GB. Earlier versions recorded it for LoRAs, MoLEs and control networks too.
    """
    files = _weight_files(places)
    if not files:
        return None
    found = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        found.update(f"{size}".encode())
        with file.open("rb") as opened:
            length = min(int.from_bytes(opened.read(8), "little"), size)  # a file of another kind is refused later
            found.update(opened.read(length))
            for piece in range(_PIECES):
                opened.seek(8 + length + (max(0, size - 8 - length - _PIECE) * piece) // (_PIECES - 1))
                found.update(opened.read(_PIECE))
    return found.hexdigest()[:32]


def earlier_fingerprints(*places: Path) -> dict[str, str]:
    """Return what an earlier version recorded for the weights of each place, and `weights_fingerprint` in its stead."""
    found = [(sampled_fingerprint(place), weights_fingerprint(place)) for place in places]
    return {sampled: whole for sampled, whole in found if sampled is not None and whole is not None}


def _weight_files(places: Sequence[Path]) -> list[Path]:
    return [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*.safetensors")))]


@lru_cache(maxsize=64)
def _whole(file: Path, _mtime: int, _size: int) -> str:
    return file_digest(file)


def vae_fingerprint(pipeline: Any) -> str:
    """Return a hash of everything that latents depend on: the VAE's weights and settings."""
    return digest(json.dumps([_network(pipeline.vae)], sort_keys=True))


def text_fingerprint(pipeline: Any, precision: torch.dtype | None) -> str:
    """Return a hash of everything that embeddings depend on: encoders, tokenizers, empty prompts, autocast dtype."""
    base = base_of(pipeline)
    parts, readers = ([getattr(pipeline, name) for name in names] for names in (base.encoders, base.tokenizers))
    encoders = [_network(encoder) for encoder in parts if encoder is not None]
    words = [_words(one) for one in readers if one is not None]
    content = [encoders, words, bool(pipeline.config.get("force_zeros_for_empty_prompt")), str(precision)]
    return digest(json.dumps(content, sort_keys=True))


def _words(tokenizer: Any) -> list[Any]:
    """Return a tokenizer's words, and how it fills and frames a text."""
    special = [tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token, getattr(tokenizer, "chat_template", None)]
    return [sorted(tokenizer.get_vocab().items()), tokenizer.model_max_length, *map(str, special)]


def _network(module: nn.Module) -> list[Any]:
    """Return a hash of a network's weights, in their stored precision, and its settings."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    config: Any = module.config
    plain: Mapping[str, Any] = config if isinstance(config, Mapping) else config.to_dict()
    settings = {name: str(value) for name, value in plain.items() if name[0] != "_" and name not in _IGNORED}
    return [found.hexdigest(), settings]
