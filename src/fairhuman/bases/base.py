"""What a base model is to everything else. A base file says how captions are encoded and how the network is called.

Latents are [B, C, h, w] on the VAE's grid everywhere. Packing into tokens is undone before a prediction is returned, so
masks, losses and estimators are the same for all bases. `docs/extending.md` has a guide to adding a base.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import diffusers
import torch
import transformers
from safetensors.torch import load, save
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer

from fairhuman.bases.latents import check_finite, decode_latents, latent_moments, vae_factor
from fairhuman.bases.names import BASES, PATCH, BaseName
from fairhuman.bases.noising import Flow, Noising
from fairhuman.bases.published import PUBLISHED
from fairhuman.bases.settings import TimeSettings
from fairhuman.data.samples.batch import Batch, Text
from fairhuman.errors import ModelError
from fairhuman.utils.hub import variant_in
from fairhuman.utils.shipped import home

LIBRARIES = {"diffusers": diffusers, "transformers": transformers}  # of a pipeline's components
READ = {"embeds": "prompt_embeds", "pooled": "pooled_prompt_embeds"}  # what pipelines call the tensors of `encode`


class Base(ABC):
    """A pipeline, and what training and sampling need to know of it. It holds nothing else, so it is cheap to make.

    Attributes:
        kind: the pipeline's class in diffusers.
        targets: LoRA's presets by name: each a list of ends of layers' names; every base has `attention`.
        part, called: the component that is trained, and what messages call it.
        guided: whether guidance is between two predictions; false where the network is conditioned on it.
        longest: tokens of a caption that are read, by the last of the tokenizers.
        width: the network's setting that is the width of a token's embedding.
        encoded: tokens that text encoders get, at most, with a template's and those that are dropped later; None: as
            many.
        encoders, tokenizers: components that read captions; one that is None in a pipeline is left out.
    """

    kind: ClassVar[type]
    targets: ClassVar[Mapping[str, Sequence[str]]]
    part: ClassVar[str] = "transformer"
    called: ClassVar[str] = "transformer"
    guided: ClassVar[bool] = True
    longest: ClassVar[int] = 512
    width: ClassVar = "joint_attention_dim"
    encoded: ClassVar[int | None] = None
    encoders: ClassVar[Sequence[str]] = ("text_encoder",)
    tokenizers: ClassVar[Sequence[str]] = ("tokenizer",)

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

    @classmethod
    def load(cls, folder: str, dtype: torch.dtype = torch.float32) -> Self:
        """Load a pipeline's folder or hub id: the VAE in float32, all else in `dtype`. Called once, first."""
        OwnPipeline: Any = cls.kind
        dtypes = {"default": dtype, "vae": torch.float32}
        # diffusers must be told of what a pipeline goes without, such as T5
        without = {name: None for name, value in OwnPipeline.load_config(folder).items() if value == [None, None]}
        variant = variant_in(Path(folder) / cls.part)
        return cls(
            OwnPipeline.from_pretrained(
                folder, dtype=dtypes, variant=variant, trust_remote_code=False, use_safetensors=True, **without
            )
        )

    @classmethod
    def shape(cls, folder: str) -> Self:
        """Build a pipeline on `meta`, without weights, from its configurations: for a run's memory.

        Args:
            folder: of the pipeline, or a name in `PUBLISHED`.

        Raises:
            OSError: a configuration is missing.
        """
        kind: Any = cls.kind
        if folder in PUBLISHED:
            built = {name: _published(*part) for name, part in PUBLISHED[folder].items()}
            return cls(kind(**built, **dict.fromkeys(cls.tokenizers)))
        index = kind.load_config(folder)
        parts = {name: value for name, value in index.items() if isinstance(value, list)}
        found = {name: _part(folder, name, library, of) for name, (library, of) in parts.items()}
        plain = {name: value for name, value in index.items() if name[0] != "_" and name not in parts}
        return cls(kind(**found, **plain))

    @classmethod
    def reader(cls, folder: str) -> Self:
        """Load the tokenizers of a pipeline's folder and nothing else, to count tokens.

        Raises:
            OSError, ValueError: one is missing or damaged.
        """
        kind: Any = cls.kind
        parts = {name: value for name, value in kind.load_config(folder).items() if isinstance(value, list)}
        names = [name for name in cls.tokenizers if parts.get(name, (None, None))[1] is not None]
        found = {n: AutoTokenizer.from_pretrained(home(folder, n), subfolder=n, trust_remote_code=False) for n in names}
        return cls(kind(**{**dict.fromkeys(parts), **found}))

    @classmethod
    def text_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `encode`'s tensors for the longest caption, from the network's configuration.

        For estimates of memory and of a cache's size, before anything is loaded. By default there are embeddings alone.
        """
        return {"embeds": (cls.longest, config[cls.width])}

    @property
    def network(self) -> Any:
        """The network that is trained, an `nn.Module`."""
        return getattr(self.pipeline, self.part)

    @property
    def vae(self) -> Any:
        """The VAE."""
        return self.pipeline.vae

    @property
    def text_encoders(self) -> list[nn.Module]:
        """The networks that read captions."""
        return [part for name in self.encoders if (part := getattr(self.pipeline, name)) is not None]

    @property
    def factor(self) -> int:
        """Pixels per latent cell and side."""
        return vae_factor(self.vae)

    @property
    def patch(self) -> int:
        """Latent cells per token and side; sides of pictures are multiples of factor · patch."""
        return PATCH

    @property
    def channels(self) -> int:
        """C of the latents."""
        return int(self.vae.config.latent_channels)

    def noising(self, times: TimeSettings | None = None) -> Noising:
        """Return the noise process. Called once a run; `times` are the settings of flow-matching bases."""
        return Flow.of(self.pipeline.scheduler.config, times)

    def moments(self, pictures_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the latents, [B, C, h, w], float32, in the network's scale.

        Called once a micro-batch, or once a view if latents are cached, with pictures [B, 3, H, W] in [-1, 1] on the
        VAE's device. Without gradients; the VAE runs in float32, outside of autocast.

        Raises:
            ModelError: a side isn't a multiple of the factor, or a value isn't finite.
        """
        return latent_moments(self.vae, pictures_bchw)

    def decode(self, latents_bchw: Tensor) -> Tensor:
        """Return pictures [B, 3, H, W] in [-1, 1], float32; undoes the mean of `moments`. Called after sampling.

        Raises:
            ModelError: a value isn't finite.
        """
        return decode_latents(self.vae, latents_bchw)

    @abstractmethod
    def encode(self, caption: str) -> Text:
        """Return what the network reads of one caption, as the pipeline's sampling does, without a batch axis.

        Called once a caption if texts are cached, else once a sample; without gradients. Without padding that depends
        on other captions: the number of tokens may differ from caption to caption. An empty caption gives what
        sampling takes for the unconditional prediction.
        """

    def texts(self, captions: Sequence[str], gradient: bool = False) -> list[Text]:
        """Return `encode` of each caption; `gradient`: so that the encoders can be trained."""
        with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
            return [self.encode(caption) for caption in captions]

    def as_read(self, caption: str) -> str:
        """Return the text that the last tokenizer gets of a caption: it in a chat template, if the encoder chats."""
        return caption

    def lengths(self, captions: Sequence[str]) -> list[int]:
        """Return the number of tokens of each caption, which may be above `limit`; what a template adds counts."""
        found = self._tokenizer(list(map(self.as_read, captions)), verbose=False).input_ids if captions else []
        return [len(tokens) for tokens in found]

    def cuts(self, caption: str) -> bool:
        """Whether a caption has more tokens than are read, so that its end isn't seen."""
        return self.lengths([caption])[0] > self.limit

    @property
    def limit(self) -> int:
        """Tokens of a caption that are read; the rest isn't seen."""
        return min(self.longest, int(self._tokenizer.model_max_length))

    @property
    def _tokenizer(self) -> Any:
        return [one for name in self.tokenizers if (one := getattr(self.pipeline, name)) is not None][-1]

    def packed(self, text: Text) -> Tensor:
        """Return a text as one tensor on the CPU, for a cache on disk: a safetensors file's bytes, floats in bfloat16.

        Encoders such as T5 and Qwen overflow in float16.
        """
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in text.items()}
        kept = {name: t.bfloat16() if t.is_floating_point() else t for name, t in kept.items()}
        return torch.frombuffer(bytearray(save(kept)), dtype=torch.uint8)

    def unpacked(self, packed: Tensor) -> Text:
        """Return the text of `packed`."""
        found: Text = load(packed.numpy().tobytes())
        return found

    @abstractmethod
    def predict(self, noisy_bchw: Tensor, levels_b: Tensor, texts: Sequence[Text]) -> Tensor:
        """Return the network's prediction of `noising().target`, [B, C, h, w].

        Called once a micro-batch, with gradients. Noisy latents [B, C, h, w] and floating-point texts come in the
        network's type and on its device; levels [B] as `noising` draws them. The result may have any type.
        """

    def prediction(
        self, batch: Batch, noisy_bchw: Tensor, levels_b: Tensor, train_text: bool = False, **more: Any
    ) -> Tensor:
        """Return `predict` for the captions of a batch, float32; encodes them unless the batch has their texts.

        `train_text`: with gradients to the text encoders. `more` are arguments of the base's `predict`.
        """
        texts = batch.texts or self.texts(batch.captions, train_text)
        return self._predicted(noisy_bchw, levels_b, texts, **more)

    def _predicted(self, noisy_bchw: Tensor, levels_b: Tensor, texts: Sequence[Text], **more: Any) -> Tensor:
        """Return `predict` of inputs of any type, float32."""
        device, dtype = noisy_bchw.device, self.dtype
        given = [{n: t.to(device, dtype if t.is_floating_point() else None) for n, t in text.items()} for text in texts]
        return self.predict(noisy_bchw.to(dtype), levels_b, given, **more).float()

    @property
    def dtype(self) -> torch.dtype:
        """The network's type: that of its first weight that isn't quantised, as LoRA's are float32 in any network."""
        found: torch.dtype = next(p.dtype for p in self.network.parameters() if p.is_floating_point())
        return found

    @property
    def device(self) -> torch.device:
        """The network's device."""
        found: torch.device = next(self.network.parameters()).device
        return found

    @property
    def blocks(self) -> list[nn.Module]:
        """The network's repeated blocks, which have nearly all of its linear layers.

        Where diffusers doesn't say which they are, they are the modules whose class is a `...TransformerBlock`.
        """
        names = self.network._repeated_blocks or ()

        def is_block(kind: str) -> bool:
            return kind in names if names else kind.endswith("TransformerBlock")

        return [module for module in self.network.modules() if is_block(type(module).__name__)]

    def compile_blocks(self) -> None:
        """Let torch compile the network's repeated blocks. Called once, if a run asks for it."""
        for block in self.blocks:
            block.compile()

    def save_lora(self, file: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Write the LoRA file that the pipeline's `load_lora_weights` reads. Called once, when a run ends.

        Args:
            file: to write; its folder exists.
            state: A and B by peft's names, without a prefix.
            metadata: peft's settings.
        """
        kind: Any = self.kind
        given = {f"{self.part}_lora_layers": dict(state), f"{self.part}_lora_adapter_metadata": dict(metadata)}
        kind.save_lora_weights(file.parent, weight_name=file.name, **given)

    @property
    def side(self) -> int:
        """Pixels per side of a picture if none are given: the model's own."""
        return int(getattr(self.pipeline, "default_sample_size", 128)) * self.factor

    @property
    def largest(self) -> int | None:
        """Pixels of the longest side of a picture that the network has positions for; None: any."""
        return None

    def check_largest(self, size: tuple[int, int], name: str) -> None:
        """Check that the network has positions for pictures of a size (height, width); `name` is for the message.

        Raises:
            ModelError: a side is longer than `largest`.
        """
        if self.largest is not None and max(size) > self.largest:
            raise ModelError(
                f"{name}: the {self.called} has positions for sides of at most {self.largest} pixels, found {size}"
            )

    def arguments(self, prompt: str, negative_prompt: str, guidance: float) -> dict[str, Any]:
        """Return the arguments of the pipeline for prompts and guidance; what a base doesn't read is left out."""
        return {"prompt": prompt, "negative_prompt": negative_prompt, "guidance_scale": guidance}

    def read(self, prompt: str, negative_prompt: str, guidance: float) -> dict[str, Any]:
        """Return `arguments` with the texts encoded, as the pipeline encodes them: it then needs no text encoder."""
        given = self.arguments(prompt, negative_prompt, guidance)
        for name in given.keys() & {"prompt", "negative_prompt"}:
            kind = name.removesuffix("prompt")
            given |= {f"{kind}{READ[part]}": tensor[None] for part, tensor in self.encode(given.pop(name)).items()}
        return given

    def scale(self, guidance: float) -> float:
        """Return w of u + w (c - u), for predictions u without and c with the prompt, that `guidance` means."""
        return guidance

    def sampled(self, found: Any, size: tuple[int, int]) -> Tensor:  # noqa: ARG002 - bases that pack latents need it
        """Return latents [1, C, h, w] for `decode` from the pipeline's output of `output_type="latent"`.

        `size` is the picture's (height, width).
        """
        latents: Tensor = found
        return latents

    def draw(
        self,
        size: tuple[int, int],
        prompt: str,
        generator: torch.Generator,
        steps: int,
        guidance: float,
        negative_prompt: str = "",
        on_step: Callable[[], object] | None = None,
        read: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Draw the latents [1, C, h, w] of one picture by the base's own pipeline and scheduler; see `picture`.

        Pictures are drawn one at a time, so that one depends on its prompt and generator alone.

        Args:
            size: height and width, multiples of factor · patch.
            prompt, negative_prompt: the texts.
            generator: of the noise.
            steps, guidance: as the pipeline means them.
            on_step: called after each step.
            read: what `read` returns of the texts and the guidance, if it is known.
        """
        self.pipeline.set_progress_bar_config(disable=True)
        with torch.no_grad(), evaluating(self.pipeline), quiet():
            found = self.pipeline(
                **(self.read(prompt, negative_prompt, guidance) if read is None else read),
                height=size[0],
                width=size[1],
                num_inference_steps=steps,
                generator=generator,
                output_type="latent",
                **({} if on_step is None else {"callback_on_step_end": partial(after_step, on_step)}),
            ).images
            return self.sampled(found, size)

    def redraw(
        self,
        start_1chw: Tensor,
        strength: float,
        prompt: str,
        generator: torch.Generator,
        steps: int,
        guidance: float,
        negative_prompt: str = "",
        on_step: Callable[[], object] | None = None,
        texts: Sequence[Text] | None = None,
    ) -> Tensor:
        """Draw latents [1, C, h, w] from those of another picture, noised to level `strength`; otherwise as `draw`.

        Euler's method in ⌊steps · strength⌋ equal steps. Guidance is that between prompt and negative prompt; bases
        whose network is conditioned on it (`guided` is false) go without. `texts` are what `guided_texts` returns, if
        it is known.
        """
        device, noising = start_1chw.device, self.noising()
        noise = torch.randn(start_1chw.shape, generator=generator).to(device)
        levels = torch.linspace(strength, 0.0, max(1, int(steps * strength)) + 1, device=device)
        with torch.no_grad(), evaluating(self.pipeline):
            x = noising.add(start_1chw.float(), noise, levels[:1])
            texts = self.guided_texts(prompt, negative_prompt, guidance) if texts is None else texts
            for level, after in pairwise(levels):
                found = [self._predicted(x, level[None], [text]) for text in texts]
                velocity = torch.lerp(found[1], found[0], self.scale(guidance)) if len(found) == 2 else found[0]
                x = x + (after - level) * velocity
                if on_step is not None:
                    on_step()
            return x

    def guided_texts(self, prompt: str, negative_prompt: str, guidance: float) -> list[Text]:
        """Return `encode` of the prompt and, where guidance is between two predictions, of the negative prompt."""
        with_negative = self.guided and self.scale(guidance) > 1.0
        return self.texts([prompt, negative_prompt] if with_negative else [prompt])

    def picture(self, latents_1chw: Tensor) -> Tensor:
        """Return the picture [3, H, W] of drawn latents, in [-1, 1], float32 on the CPU.

        Raises:
            ModelError: latents or pictures aren't finite.
        """
        check_finite(latents_1chw, f"the {self.called}'s latents ({self.dtype})", "sample in bf16 or fp32")
        return self.decode(latents_1chw)[0].cpu()


def _part(folder: str, name: str, library: str | None, kind: str | None) -> Any:
    """Build a component: networks on `meta`, the scheduler as it is; None for tokenizers and where a pipeline has none.

    Raises:
        ModelError: its class isn't one of diffusers or transformers.
    """
    if library is None or kind is None or name.startswith("tokenizer"):
        return None
    found: Any = getattr(LIBRARIES.get(library), kind, None)
    if found is None:
        raise ModelError(f"model {folder!r}: expected a {name} of diffusers or transformers, found {library}.{kind}")
    folder = home(folder, name)
    if library == "diffusers":
        return _on_meta(found, found.load_config(folder, subfolder=name))
    return _on_meta(found, AutoConfig.from_pretrained(folder, subfolder=name, trust_remote_code=False))


def _published(library: str, kind: str, values: Mapping[str, Any]) -> Any:
    """Build a component of a model in `PUBLISHED`."""
    return _on_meta(
        getattr(LIBRARIES[library], kind), values if library == "diffusers" else AutoConfig.for_model(**values)
    )


def _on_meta(kind: Any, config: Any) -> Any:
    """Build a component from its configuration, a network on `meta`."""
    with torch.device("meta") if issubclass(kind, nn.Module) else nullcontext():
        return kind.from_config(config) if issubclass(kind, diffusers.ConfigMixin) else kind(config)


def base_class(name: BaseName) -> type[Base]:
    """Import the class of a base."""
    module, _, attribute = name.place.partition(":")
    found: type[Base] = getattr(import_module(f"fairhuman.bases.{module}"), attribute)
    return found


def base_of(pipeline: Any) -> Base:
    """Return the base of a loaded pipeline.

    Raises:
        KeyError: there is no base for its class; loading refuses such pipelines.
    """
    return base_class(BASES[type(pipeline).__name__])(pipeline)


def networks(pipeline: Any) -> tuple[nn.Module, ...]:
    """Return all modules of a pipeline that hold weights."""
    return tuple(part for part in pipeline.components.values() if isinstance(part, nn.Module))


@contextmanager
def evaluating(pipeline: Any) -> Iterator[None]:
    """Put all modules of the pipeline in eval mode; restore each one's own mode afterwards."""
    parts = networks(pipeline)
    modes = [(module, module.training) for part in parts for module in part.modules()]
    for part in parts:
        part.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def quiet() -> Iterator[None]:
    """Silence diffusers and transformers, which warn of every caption that CLIP cuts although T5 reads on."""
    logs = diffusers.utils.logging, transformers.utils.logging
    levels = [log.get_verbosity() for log in logs]
    for log in logs:
        log.set_verbosity_error()
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)


def stacked(texts: Sequence[Text], name: str) -> Tensor:
    """Return a text's tensors of equal shape as one, [B, ...]."""
    return torch.stack([text[name] for text in texts])


def in_chat(tokenizer: Any, caption: str, thinking: bool) -> str:
    """Return a caption as a user's message in a language model's chat template."""
    messages = [{"role": "user", "content": caption}]
    text: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )
    return text


def padded(texts: Sequence[Text], name: str) -> tuple[Tensor, Tensor | None]:
    """Return tensors [n, D] of any n as one [B, longest, D], padded with zeros, and a mask [B, longest], int64.

    The mask is None if all are equally long.
    """
    parts = [text[name] for text in texts]
    if len({len(part) for part in parts}) == 1:
        return torch.stack(parts), None
    ones = [torch.ones(len(part), dtype=torch.int64, device=part.device) for part in parts]
    pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
    return pad(parts), pad(ones)


def after_step(
    on_step: Callable[[], object], _pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Call `on_step`: with `partial`, a `callback_on_step_end` of diffusers' pipelines."""
    on_step()
    return tensors
