"""Tiny real ONNX models that find bright things: their boxes follow from the picture, in every output layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
BRIGHT = 0.9


class Graph:
    """Nodes and constants, written one by one."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node; gives the name of its output."""
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        """A constant; gives its name."""
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=kind), name))
        return name

    def save(
        self, path: Path, shape: Sequence[Any], outputs: Sequence[str], metadata: dict[str, str], rank: int = 3
    ) -> None:
        """Write the model with one input `images`; `outputs` are nodes of float32 of unknown sides."""
        sides = [f"side{number}" for number in range(rank)]
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name in outputs]
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, list(shape))
        graph = helper.make_graph(self.nodes, "tiny", [images], values, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model)
        onnx.save(model, path)

    def extent(self, mask: str, axis: int) -> tuple[str, str]:
        """First index and length of the bright part of `mask` [1, 1, H, W] along one axis, each [1, 1, 1]."""
        along = self.add("ReduceMax", mask, axes=[5 - axis], keepdims=0)  # [1, 1, length]
        length = self.add("ReduceSum", along, self.constant([2], np.int64), keepdims=1)
        return self.add("Cast", self.add("ArgMax", along, axis=2, keepdims=1), to=TensorProto.FLOAT), length

    def mask(self, channel: int, threshold: float = BRIGHT) -> str:
        """1 where a colour channel of `images` is above a threshold, else 0: [1, 1, H, W]."""
        plane = self.add("Gather", "images", self.constant([channel], np.int64), axis=1)
        return self.add("Cast", self.add("Greater", plane, self.constant(threshold)), to=TensorProto.FLOAT)

    def bright_box(self, channel: int) -> tuple[str, str, str, str, str]:
        """x0, y0, width, height and a score, 0.8 or 0 where nothing is bright; each [1, 1, 1]."""
        mask = self.mask(channel)
        (x0, width), (y0, height) = self.extent(mask, 3), self.extent(mask, 2)
        there = self.add("ReduceMax", mask, axes=[2, 3], keepdims=0)
        there = self.add("Unsqueeze", there, self.constant([2], np.int64))
        return x0, y0, width, height, self.add("Mul", there, self.constant(0.8))


def save_yolo(
    path: Path,
    layout: str,
    names: Sequence[str] | None,
    *,
    size: tuple[Any, Any] = (64, 96),
    rows: int = 40,
    task: str = "detect",
    score_scale: float = 1.0,
) -> Path:
    """A model that boxes what is bright in red (class 0) and in green (class 1), each box twice, a little shifted."""
    graph, classes = Graph(), len(names or ("a", "b"))
    found: list[str] = []
    for number in range(min(classes, 2)):
        x0, y0, width, height, score = graph.bright_box(number)
        score = graph.add("Mul", score, graph.constant(score_scale))
        for shift, lower in ((0.0, 1.0), (1.0, 0.9)):
            left = graph.add("Add", x0, graph.constant(shift))
            this_score = graph.add("Mul", score, graph.constant(lower))
            found.append(_row(graph, layout, (left, y0, width, height), this_score, number, classes))
    columns = {"v8": 4 + classes + (8 if task == "pose" else 0), "v5": 5 + classes, "end-to-end": 6}[layout]
    empty = graph.constant(np.zeros((1, rows - len(found), columns)))
    if task == "pose":
        padding = graph.constant(np.full((1, 1, 8), 500.0))  # key points, far above any score
        found = [graph.add("Concat", row, padding, axis=2) for row in found]
    output = graph.add("Concat", empty, *found, axis=1)
    if layout == "v8":
        output = graph.add("Transpose", output, perm=[0, 2, 1])
    metadata = {"task": task} | ({} if names is None else {"names": str(dict(enumerate(names)))})
    graph.save(path, [1, 3, *size], [output], metadata)
    return path


def _row(graph: Graph, layout: str, box: tuple[str, ...], score: str, number: int, classes: int) -> str:
    left, top, width, height = box
    if layout == "end-to-end":
        right, bottom = graph.add("Add", left, width), graph.add("Add", top, height)
        place, tail = (left, top, right, bottom), [score, graph.constant(np.full((1, 1, 1), number))]
    else:
        half = graph.constant(0.5)
        middle = [graph.add("Add", low, graph.add("Mul", side, half)) for low, side in ((left, width), (top, height))]
        one_hot = np.eye(classes)[number].reshape(1, 1, classes)
        place, tail = (*middle, width, height), [graph.add("Mul", score, graph.constant(one_hot))]
        if layout == "v5":  # 0.8 as the box's score times the class's
            root = graph.add("Sqrt", score)
            tail = [root, graph.add("Mul", root, graph.constant(one_hot))]
    return graph.add("Concat", *place, *tail, axis=2)


def save_yolox(path: Path, size: tuple[int, int] = (64, 64), threshold: float = 200.0, channel: int = 0) -> Path:
    """A person detector with its NMS inside, [1, 1, 5]: what is bright in one channel of 0..255."""
    graph = Graph()
    mask = graph.mask(channel, threshold)
    (x0, width), (y0, height) = graph.extent(mask, 3), graph.extent(mask, 2)
    there = graph.add("ReduceMax", mask, axes=[2, 3], keepdims=0)
    score = graph.add("Mul", graph.add("Unsqueeze", there, graph.constant([2], np.int64)), graph.constant(0.9))
    output = graph.add("Concat", x0, y0, graph.add("Add", x0, width), graph.add("Add", y0, height), score, axis=2)
    graph.save(path, [1, 3, *size], [output], {})
    return path


def save_raw_yolox(path: Path, classes: int, found: int, channel: int, side: int = 64) -> Path:
    """A person detector without NMS, [1, anchors, 5 + classes]: what is bright is of the class `found`.

    The box is in the row of the first anchor (stride 8, cell 0, 0), as centre / 8 and log(side / 8).
    """
    graph, stride = Graph(), 8.0
    mask = graph.mask(channel, 200.0)
    (x0, width), (y0, height) = graph.extent(mask, 3), graph.extent(mask, 2)
    one, half, eighth = (graph.constant(value) for value in (1.0, 0.5, 1 / stride))
    place = [
        graph.add("Mul", graph.add("Add", low, graph.add("Mul", length, half)), eighth)
        for low, length in ((x0, width), (y0, height))
    ]
    size = [graph.add("Log", graph.add("Mul", graph.add("Max", length, one), eighth)) for length in (width, height)]
    there = graph.add("ReduceMax", mask, axes=[2, 3], keepdims=0)
    score = graph.add("Mul", graph.add("Unsqueeze", there, graph.constant([2], np.int64)), graph.constant(0.9))
    of_class = graph.constant(np.eye(classes)[found].reshape(1, 1, classes))
    first = graph.add("Concat", *place, *size, score, of_class, axis=2)
    anchors = sum((side // step) ** 2 for step in (8, 16, 32))
    output = graph.add("Concat", first, graph.constant(np.zeros((1, anchors - 1, 5 + classes))), axis=1)
    graph.save(path, [1, 3, side, side], [output], {})
    return path


def save_pose(path: Path, points: np.ndarray, scores: np.ndarray, size: tuple[int, int] = (128, 96)) -> Path:
    """A SimCC pose model that puts key points [K, 2], shares of the width and height 0..1, at the same place always.

    Its scores are halved where the middle of the input isn't bright in red, once normalised: tells RGB from BGR.
    """
    graph, (height, width) = Graph(), size
    middle = graph.constant([height // 2], np.int64), graph.constant([width // 2], np.int64)
    red = graph.add("Gather", "images", graph.constant([0], np.int64), axis=1)
    pixel = graph.add("Gather", graph.add("Gather", red, middle[0], axis=2), middle[1], axis=3)  # [1, 1, 1, 1]
    bright = graph.add("Cast", graph.add("Greater", pixel, graph.constant(1.0)), to=TensorProto.FLOAT)
    half = graph.constant(0.5)
    factor = graph.add("Add", graph.add("Mul", bright, half), half)
    factor = graph.add("Squeeze", factor, graph.constant([3], np.int64))
    outputs = []
    for axis, side in enumerate((width, height)):
        bins = np.zeros((1, len(points), 2 * side))
        bins[0, np.arange(len(points)), (points[:, axis] * 2 * side).round().astype(int)] = scores
        outputs.append(graph.add("Mul", factor, graph.constant(bins)))
    graph.save(path, [1, 3, height, width], outputs, {})
    return path
