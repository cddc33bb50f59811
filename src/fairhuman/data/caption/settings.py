"""Settings of captions: a section for each kind of captioner, and one for the length."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from fairhuman.config import Settings
from fairhuman.data.caption.item import clean_text

PROMPT = (
    "Describe this picture concisely and accurately: the people, their poses, hands, expressions and clothes, and the "
    "place. Say only what can be seen, without praise or guesses. Answer with the description alone: plain "
    "sentences of at most {words} words together ({tokens} CLIP tokens)."
)


class TokenSettings(Settings):
    """The token limit of captions."""

    model: str = Field(
        default="small",
        description="SDXL whose tokenizers count, to be trained: 'small', a folder, a .safetensors file or a hub id",
    )
    max_tokens: int = Field(
        default=77,
        ge=8,
        description="maximum tokens in each tokenizer, with start and end; 77 is what SDXL reads, other bases read "
        "more: see their page",
    )
    over: Literal["cut", "warn"] = Field(default="cut", description="what to do with a longer caption")


class TemplateSettings(Settings):
    """Settings of `kind: template`."""

    phrases: dict[str, str] = Field(
        default_factory=dict,
        description="attribute of your source to a phrase at the end of the sentence; {} is its value",
    )

    @field_validator("phrases")
    @classmethod
    def _say_something(cls, phrases: dict[str, str]) -> dict[str, str]:
        for key, phrase in phrases.items():
            if not key.strip() or not clean_text(phrase):
                raise ValueError(f"must hold names and phrases that aren't empty, not {key!r}: {phrase!r}")
        return phrases


class VisionSettings(Settings):
    """The request to a vision-language model."""

    model: str = Field(default="", description="the model; required")
    prompt: str = Field(
        default=PROMPT,
        min_length=1,
        description="{tokens} and {words} are replaced by the limits of a caption, {text} by the source's caption",
    )
    longest_side: int = Field(default=1024, ge=32, description="pixels; larger pictures are scaled down for the model")
    max_new_tokens: int = Field(default=160, ge=1, description="maximum tokens of an answer, of the model's tokenizer")


class TransformersSettings(VisionSettings):
    """Settings of `kind: transformers`: `model` is a folder or a hub id, such as `Qwen/Qwen2.5-VL-7B-Instruct`."""

    EXECUTION = frozenset(("device", "batch_size"))

    device: str | None = Field(default=None, description="null: a GPU if there is one")
    batch_size: int = Field(default=8, ge=1, description="pictures per batch; halved if memory is insufficient")


class EndpointSettings(VisionSettings):
    """Settings of `kind: endpoint`: `model` is the endpoint's name of the model."""

    EXECUTION = frozenset(
        (
            *("base_url", "api_key_env", "concurrency", "requests_per_minute", "timeout", "retries"),
            *("first_wait", "longest_wait", "failures_in_a_row", "limit_name"),
        )
    )

    base_url: str = Field(default="http://localhost:8000/v1", description="without /chat/completions")
    api_key_env: str | None = Field(default=None, description="name of the environment variable with the key")
    concurrency: int = Field(default=16, ge=1, description="number of concurrent requests")
    requests_per_minute: float | None = Field(default=None, gt=0.0, description="null: no limit")
    timeout: float = Field(default=120.0, gt=0.0, description="seconds per request")
    retries: int = Field(default=5, ge=0, description="number of retries per record")
    first_wait: float = Field(default=1.0, ge=0.0, description="seconds before the first retry; doubles each time")
    longest_wait: float = Field(
        default=300.0, ge=0.0, description="maximum wait in seconds; the run ends if the endpoint asks for more"
    )
    failures_in_a_row: int = Field(default=100, ge=1, description="consecutive failed records that end the run")
    jpeg_quality: int = Field(default=90, ge=1, le=95, description="quality of the JPEG sent to the endpoint")
    temperature: float | None = Field(default=0.0, ge=0.0, description="null: not sent")
    limit_name: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="the endpoint's name for max_new_tokens"
    )

    @field_validator("base_url")
    @classmethod
    def _http(cls, url: str) -> str:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError("must be http://HOST... or https://HOST...")
        if "@" in urlsplit(url).netloc:
            raise ValueError(
                "must have no user and password, because recipe.yaml would hold them; put a key into an environment "
                "variable, and name that as api_key_env"
            )
        return url


class CaptionSettings(Settings):
    """Settings of captions: the kind of captioner, a section for each kind, and one for the length."""

    kind: Literal["template", "text", "transformers", "endpoint"] = Field(
        default="template",
        description="template: a sentence from the annotations; text: the source's caption; transformers and endpoint: "
        "from a vision-language model, run here or behind an API",
    )
    template: TemplateSettings = TemplateSettings()
    transformers: TransformersSettings = TransformersSettings()
    endpoint: EndpointSettings = EndpointSettings()
    tokens: TokenSettings = TokenSettings()

    @model_validator(mode="after")
    def _model_named(self) -> "CaptionSettings":
        for kind, section in (("transformers", self.transformers), ("endpoint", self.endpoint)):
            if self.kind == kind and not section.model.strip():
                raise ValueError(f"kind {kind} needs {kind}.model")
        return self
