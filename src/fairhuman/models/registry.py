"""Tables of precisions and control kinds."""

import torch

from fairhuman.models.control import Control
from fairhuman.models.controlnet import ControlNet
from fairhuman.models.t2i_adapter import Adapter

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
CONTROLS: dict[str, type[Control]] = {"controlnet": ControlNet, "t2i_adapter": Adapter}
