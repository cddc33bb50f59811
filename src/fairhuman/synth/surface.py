"""The visible surface of one person: skin, eyes, lashes, hair and cloth as one triangle mesh.

Cloth is the skin moved outwards. Whether a point is covered depends on its position on the template, so hems,
necklines and the hairline are sharp at any size of the picture.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from fairhuman.synth.body import Array, Body
from fairhuman.synth.person import Person
from fairhuman.synth.settings import Framing

_HAIRLINE_FRONT = (0.03, 0.066)  # offset from the head's front (y) and the height of the eyes (z), metres
_HAIRLINE_BACK = (0.02, 0.085)
_FRONT = 0.055  # the head counts as face up to this distance behind the eyes, metres


class SurfacePart(IntEnum):
    """Part of a triangle; 0 means that no ray hit."""

    SKIN = 1
    EYE = 2
    HAIR = 3
    LASH = 4


@dataclass(frozen=True, slots=True)
class Surface:
    """Triangles [F, 3] and their parts [F]; vertices and unit normals [V, 3] in metres."""

    vertices: Array
    normals: Array
    triangles: Array
    parts: Array


def build_surface(body: Body, person: Person, posed: Array, framing: Framing = "half_body") -> Surface:
    """Add clothes and hair to the posed vertices [V, 3] of a person; a half body ends at mid-thigh."""
    skin = body.whole_skin if framing == "full_body" else body.faces["skin"]
    vertices = posed.copy()
    on_skin = np.zeros(len(posed), bool)
    on_skin[np.unique(skin)] = True
    anatomy = body.anatomy
    dressed = is_clothed(body, person, body.template, anatomy.along_arm) & on_skin
    vertices[dressed] += vertex_normals(posed, skin)[dressed] * person.puff
    parts = {SurfacePart.SKIN: skin, SurfacePart.EYE: body.faces["eyes"], SurfacePart.LASH: body.faces["lashes"]}
    if person.hair_length in ("short", "medium", "long"):
        head = np.flatnonzero((anatomy.head > 0.5) & on_skin)
        height = np.clip(above_hairline(body, body.template[head]) / 0.03, 0, 1) * person.hair_thickness
        outwards = vertices[head] - vertices[head].mean(0)
        outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
        vertices[head] += outwards * height[:, None]
    if person.hair_length in ("medium", "long"):
        parts[SurfacePart.HAIR] = _long_hair(body, person)
    triangles = np.concatenate(list(parts.values())).astype(np.int32)
    numbers = np.concatenate([np.full(len(faces), part, np.int32) for part, faces in parts.items()])
    return Surface(vertices, vertex_normals(vertices, triangles), triangles, numbers)


def is_clothed(body: Body, person: Person, points: Array, along_arm: Array) -> Array:
    """Whether each point [N, 3] of the template is covered by top or trousers; `along_arm` [N] as in `Anatomy`."""
    anatomy = body.anatomy
    x, y, z = points.T
    collar = anatomy.neck + 0.028
    covered = (np.hypot(x, z - collar) > person.neckline) & (z < collar + 0.005)
    if person.top == "tank top":
        strap = ~((np.abs(x) > 0.118) & (z > anatomy.neck - 0.17)) & ((along_arm < 0) | (np.abs(x) < 0.13))
        return np.asarray(covered & strap)
    if person.v_neck:
        covered &= ~((y < 0) & (np.abs(x) < (z - (collar - 0.17)) * 0.42))
    return np.asarray(covered & (along_arm < person.sleeve))


def above_hairline(body: Body, points: Array) -> Array:
    """Return the height in metres of points [N, 3] of the template above the hairline plane."""
    anatomy = body.anatomy
    front = anatomy.head_low[1] + _HAIRLINE_FRONT[0], anatomy.eye[2] + _HAIRLINE_FRONT[1]
    back = anatomy.head_high[1] - _HAIRLINE_BACK[0], anatomy.eye[2] - _HAIRLINE_BACK[1]
    share = np.clip((points[:, 1] - front[0]) / (back[0] - front[0]), -0.2, 1.3)
    return np.asarray(points[:, 2] - (front[1] + (back[1] - front[1]) * share))


def is_on_face(body: Body, person: Person, points: Array, head: Array) -> Array:
    """Whether each point [N, 3] of the template's skin is face: the front of the head up to the hairline.

    `head` [N] is the skinning weight of each point on the head's bones.
    """
    brow = 0.03 if person.hair_length == "bald" else 0.0
    front = points[:, 1] < body.anatomy.eye[1] + _FRONT
    return np.asarray((head > 0.5) & front & (above_hairline(body, points) <= brow))


def vertex_normals(vertices: Array, triangles: Array) -> Array:
    """Return unit normals [V, 3], weighted by the areas of the triangles; 0 for a vertex without triangles."""
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    area = np.cross(b - a, c - a)
    total = np.stack(
        [
            sum(np.bincount(triangles[:, corner], area[:, axis], len(vertices)) for corner in range(3))
            for axis in range(3)
        ],
        axis=1,
    )
    return np.asarray(total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-9), dtype=np.float32)


def _long_hair(body: Body, person: Person) -> Array:
    """Return the triangles of MakeHuman's hair down to the person's length, except those over the face."""
    hair, anatomy = body.faces["hair"], body.anatomy
    chin = anatomy.head_low[2]
    lowest = (
        chin - 0.04 + 0.07 * person.hair_cut if person.hair_length == "medium" else chin - 0.10 - 0.12 * person.hair_cut
    )
    corners = body.template[hair]
    x, y, z = np.abs(corners[..., 0]).min(1), corners[..., 1].min(1), corners[..., 2]
    eye_y, eye_z = anatomy.eye[1:]
    curtain = (y < eye_y + _FRONT) & (z.min(1) < eye_z + 0.06) & (x < 0.062 + 0.012 * person.hair_cut)
    over_cheek = (y < eye_y + 0.02) & (z.min(1) < eye_z)
    return np.asarray(hair[(z.mean(1) > lowest) & ~curtain & ~over_cheek])
