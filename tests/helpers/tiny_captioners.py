"""Vision-language models of random weights, some ten thousand of them, that say other letters to other pictures."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationMixin,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    Qwen2VLVideoProcessor,
)

SPECIAL = ["<pad>", "<s>", "</s>", "[user]", "[answer]", "<image>", "<video>", "<start>", "<end>"]
VOCABULARY = {token: number for number, token in enumerate([*SPECIAL, *map(chr, range(32, 127))])}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def make_llava(folder: Path) -> None:
    """Each picture is four tokens; the template begins with the start marker."""
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    LlavaProcessor(
        pictures,
        _tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("<s>", "<image>"),
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**TINY, image_size=28, patch_size=14),
        text_config=LlamaConfig(**TINY, vocab_size=len(VOCABULARY)),
        image_token_index=VOCABULARY["<image>"],
    )
    _save(LlavaForConditionalGeneration(config), folder, larger=8)


def make_qwen(folder: Path) -> None:
    """Qwen2.5-VL: a larger picture has more tokens, so that prompts of a batch are padded."""
    Qwen2_5_VLProcessor(
        Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=64, max_pixels=4096),
        _tokenizer(image_token="<image>", video_token="<video>"),
        Qwen2VLVideoProcessor(patch_size=4, merge_size=2),
        chat_template=_template("", "<start><image><end>"),
    ).save_pretrained(folder)
    torch.manual_seed(0)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3]}
    config = Qwen2_5_VLConfig(
        text_config={**TINY, "num_key_value_heads": 2, "vocab_size": len(VOCABULARY), "rope_scaling": rope},
        vision_config={
            **{"depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32},
            **{"patch_size": 4, "spatial_merge_size": 2, "window_size": 16, "fullatt_block_indexes": [1]},
        },
        image_token_id=VOCABULARY["<image>"],
        video_token_id=VOCABULARY["<video>"],
        vision_start_token_id=VOCABULARY["<start>"],
        vision_end_token_id=VOCABULARY["<end>"],
    )
    _save(Qwen2_5_VLForConditionalGeneration(config), folder, larger=4)


def _template(start: str, picture: str) -> str:
    part = f"{{{{ '{picture}' if part['type'] == 'image' else part['text'] }}}}"
    parts = f"{{% for message in messages %}}{{% for part in message['content'] %}}{part}{{% endfor %}}{{% endfor %}}"
    return f"{start}[user]{parts}{{% if add_generation_prompt %}}[answer]{{% endif %}}"


def _tokenizer(**named: str) -> PreTrainedTokenizerFast:
    """A token a letter; pads on the right, as many models' own settings have it."""
    letters = Tokenizer(models.WordLevel(VOCABULARY, unk_token="?"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=letters,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=SPECIAL[3:],
        padding_side="right",
        **named,
    )


def _save(model: nn.Module, folder: Path, larger: float) -> None:
    """Weights are made larger: far from ties, rounding can't change a word."""
    for parameter in model.parameters():
        parameter.data *= larger
    assert isinstance(model, GenerationMixin)
    # As real models have it; greedy decoding must neither follow nor warn.
    model.generation_config.update(do_sample=True, temperature=0.5, top_k=7, top_p=0.9)
    model.generation_config.update(eos_token_id=VOCABULARY["</s>"], pad_token_id=VOCABULARY["<pad>"])
    model.save_pretrained(folder)
