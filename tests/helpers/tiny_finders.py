"""Open-vocabulary models of random weights and some ten thousand of them, of transformers' own classes."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    PreTrainedTokenizerFast,
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    SamConfig,
    SamImageProcessor,
    SamModel,
    SamProcessor,
    SwinConfig,
)

LETTERS = [chr(number) for number in range(32, 127)]
CLIP = {
    "<pad>": 0,
    **{letter: 1 + i for i, letter in enumerate(LETTERS)},
    "<s>": 96,
    "</s>": 97,
}  # OWL: the end is last
BERT = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102}  # and `.`: numbers that Grounding DINO knows
BERT |= {letter: 1012 if letter == "." else 200 + i for i, letter in enumerate(LETTERS)}
TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def make_grounding_dino(folder: Path) -> None:
    """Boxes, ten a picture."""
    torch.manual_seed(0)
    stages = ["stage2", "stage3", "stage4"]
    swin = {"window_size": 2, "embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4, "image_size": 64}
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(**swin, out_features=stages, out_indices=[2, 3, 4]),
        text_config={**TINY, "model_type": "bert", "vocab_size": 1100, "max_position_embeddings": 64},
        **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2},
        **{"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 10},
        max_text_len=64,
        disable_custom_kernels=True,
    )
    pictures = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(pictures, _tokenizer(BERT, "[CLS]", "[SEP]", "[PAD]")).save_pretrained(folder)
    _save(GroundingDinoForObjectDetection(config), folder)


def make_owlv2(folder: Path) -> None:
    """Boxes, sixteen a picture."""
    torch.manual_seed(0)
    ends = {"pad_token_id": 0, "bos_token_id": 96, "eos_token_id": 97}
    config = Owlv2Config(
        text_config={**TINY, **ends, "vocab_size": len(CLIP), "max_position_embeddings": 32},
        vision_config={**TINY, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    pictures = Owlv2ImageProcessor(size={"height": 32, "width": 32})
    Owlv2Processor(pictures, _tokenizer(CLIP, "<s>", "</s>", "<pad>", longest=32)).save_pretrained(folder)
    _save(Owlv2ForObjectDetection(config), folder, larger=1)  # larger ones give scores of 0


def make_clipseg(folder: Path) -> None:
    """Masks."""
    torch.manual_seed(0)
    ends = {"pad_token_id": 0, "bos_token_id": 96, "eos_token_id": 97}
    config = CLIPSegConfig(
        text_config={**TINY, **ends, "vocab_size": len(CLIP), "max_position_embeddings": 64},
        vision_config={**TINY, "image_size": 32, "patch_size": 8},
        **{"projection_dim": 16, "reduce_dim": 16, "extract_layers": [0, 1], "decoder_num_attention_heads": 2},
        decoder_intermediate_size=16,
    )
    pictures = CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    CLIPSegProcessor(pictures, _tokenizer(CLIP, "<s>", "</s>", "<pad>", longest=64)).save_pretrained(folder)
    _save(CLIPSegForImageSegmentation(config), folder, larger=3)


def make_sam(folder: Path) -> None:
    """A mask for each box."""
    torch.manual_seed(0)
    heads = {"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    config = SamConfig(
        vision_config={
            **{"hidden_size": 16, "output_channels": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
            **{"image_size": 64, "patch_size": 16, "num_pos_feats": 8, "mlp_dim": 16, "global_attn_indexes": [0]},
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16},
        mask_decoder_config=heads,
    )
    SamProcessor(SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})).save_pretrained(
        folder
    )
    _save(SamModel(config), folder)


def make_sam2(folder: Path) -> None:
    """A mask for each box."""
    torch.manual_seed(0)
    backbone = {
        **{"model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [64, 64], "num_attention_heads": 1},
        **{"blocks_per_stage": [1] * 4, "embed_dim_per_stage": [8, 16, 32, 64], "global_attention_blocks": [0]},
        **{"num_attention_heads_per_stage": [1, 1, 1, 1], "window_size_per_stage": [4, 4, 4, 4]},
        "window_positional_embedding_background_size": [2, 2],
    }
    config = Sam2Config(
        vision_config={
            "backbone_config": backbone,
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 16,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )
    Sam2Processor(
        Sam2ImageProcessor(size={"height": 64, "width": 64}, mask_size={"height": 16, "width": 16})
    ).save_pretrained(folder)
    _save(Sam2Model(config), folder)


def _tokenizer(
    vocabulary: dict[str, int], start: str, end: str, pad: str, longest: int = 64
) -> PreTrainedTokenizerFast:
    """A token a letter, between a start and an end."""
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    marks = [(name, vocabulary[name]) for name in (start, end)]
    letters.post_processor = processors.TemplateProcessing(single=f"{start} $A {end}", special_tokens=marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=letters, pad_token=pad, bos_token=start, eos_token=end, model_max_length=longest
    )


def _save(model: nn.Module, folder: Path, larger: float = 6.0) -> None:
    """Larger weights give scores that differ between phrases and between pictures."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "norm" not in name:
            parameter.data *= larger
    model.save_pretrained(folder)
