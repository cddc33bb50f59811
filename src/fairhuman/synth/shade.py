"""Shading: colours of the points that rays hit, with materials in template coordinates and one light."""

from dataclasses import dataclass

import numpy as np

from fairhuman.synth.body import Array, Body
from fairhuman.synth.cast import RayHits
from fairhuman.synth.person import CLOTHES, HAIRS, SKINS, Person
from fairhuman.synth.scene import Light
from fairhuman.synth.surface import Surface, SurfacePart, above_hairline, is_clothed, is_on_face

_SHOES = (0.09, 0.08, 0.08)  # reflectance, up to the ankles


@dataclass(frozen=True, slots=True)
class SurfacePoints:
    """The N surface points that rays hit, with their template attributes.

    Attributes:
        part: see `SurfacePart`, [N].
        normals: unit, towards the camera, [N, 3].
        template: position on the template in metres, [N, 3].
        head, hand, lips, along_arm: as in `Anatomy`, [N].
        cloth: whether top or trousers cover the point, [N].
        face: whether the point belongs to the face, [N].
    """

    part: Array
    normals: Array
    template: Array
    head: Array
    hand: Array
    lips: Array
    along_arm: Array
    cloth: Array
    face: Array


def interpolate_hits(body: Body, person: Person, surface: Surface, hits: RayHits, rays: Array) -> SurfacePoints:
    """Interpolate the attributes of N hits (all with `face` >= 0) of rays [N, 3]."""
    corners = surface.triangles[hits.face]
    anatomy = body.anatomy
    attributes = np.concatenate(
        [
            surface.normals,
            body.template,
            np.stack([anatomy.head, anatomy.hand, anatomy.lips, anatomy.along_arm], axis=1),
        ],
        axis=1,
    )
    values = np.einsum("nc,nca->na", hits.weights, attributes[corners])
    normals, template = values[:, :3], values[:, 3:6]
    facing = np.einsum("na,na->n", normals, rays)
    normals = normals - rays * np.where(facing > 0, 1.01 * facing, 0)[:, None]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    part = surface.parts[hits.face]
    head, along_arm = values[:, 6], values[:, 9]
    skin = part == SurfacePart.SKIN
    return SurfacePoints(
        part=part,
        normals=normals,
        template=template,
        head=head,
        hand=values[:, 7],
        lips=values[:, 8],
        along_arm=along_arm,
        cloth=skin & is_clothed(body, person, template, along_arm),
        face=(skin & is_on_face(body, person, template, head)) | (part == SurfacePart.EYE) | (part == SurfacePart.LASH),
    )


def shade(
    body: Body, person: Person, points: SurfacePoints, rays: Array, light: Light, lit: Array, forward: Array
) -> Array:
    """Return linear colours [N, 3]: ambient light from above and the camera, Lambert's law, a small highlight."""
    colour, gloss = _materials(body, person, points)
    towards = light.direction.astype(np.float32)
    diffuse = np.clip(points.normals @ towards, 0, 1) * np.where(lit, 1, 0.15)
    sky = 0.5 + 0.5 * points.normals[:, 2]
    fill = np.clip(-(points.normals @ forward.astype(np.float32)), 0, 1)
    ambient = 0.16 + 0.16 * sky + 0.22 * fill
    halfway = towards - rays
    halfway /= np.linalg.norm(halfway, axis=1, keepdims=True)
    highlight = np.clip(np.einsum("na,na->n", points.normals, halfway), 0, 1) ** 24 * lit
    shaded: Array = colour * (ambient[:, None] + diffuse[:, None] * light.colour) + (highlight * gloss)[:, None]
    return shaded


def _materials(body: Body, person: Person, points: SurfacePoints) -> tuple[Array, Array]:
    """Return reflectances [N, 3] and strengths of the highlight [N]."""
    skin_colour, hair_colour = (np.array(c, np.float32) for c in (SKINS[person.skin], HAIRS[person.hair]))
    count = len(points.part)
    colour = np.tile(skin_colour, (count, 1))
    gloss = np.full(count, 0.06, np.float32)
    skin = points.part == SurfacePart.SKIN
    _paint_face(body, person, points, colour, skin_colour, hair_colour)
    x, y, z = points.template.T
    if person.hair_length != "bald":
        scalp = np.clip(above_hairline(body, points.template) / 0.006 + 0.5, 0, 1) * (skin & (points.head > 0.5))
        strands = 0.12 * np.sin(x * 900 + np.sin(z * 300) * 2) + 0.1 * np.sin(y * 700)
        if person.hair_length == "buzz cut":
            scalp, strands = 0.8 * scalp, 0 * strands
        _mix(colour, hair_colour * (1 + strands[:, None]), scalp)
    hair = points.part == SurfacePart.HAIR
    colour[hair] = hair_colour * (1 + 0.10 * np.sin(x[hair] * 500 + np.sin(z[hair] * 60) * 3))[:, None]
    gloss[hair] = 0.13
    colour[points.part == SurfacePart.LASH] = 0.05
    eye = points.part == SurfacePart.EYE
    radius = np.hypot(np.abs(x[eye]) - abs(body.anatomy.eye[0]), z[eye] - body.anatomy.eye[2])
    iris = np.where((radius < 0.0062)[:, None], np.array(person.iris, np.float32), 0.93)
    colour[eye] = np.where((radius < 0.0028)[:, None], 0.02, iris)
    gloss[eye] = 0.31
    _paint_clothes(body, person, points, colour)
    return colour, gloss


def _paint_face(
    body: Body, person: Person, points: SurfacePoints, colour: Array, skin_colour: Array, hair_colour: Array
) -> None:
    """Paint cheeks, lips, brows and eye sockets into `colour`; distances are metres on the template."""
    eye_x, eye_z = abs(body.anatomy.eye[0]), body.anatomy.eye[2]
    x, z = np.abs(points.template[:, 0]), points.template[:, 2]
    front = points.face & (points.part == SurfacePart.SKIN)
    cheek = front * np.exp(-(((x - 1.05 * eye_x) / 0.018) ** 2 + ((z - eye_z + 0.038) / 0.018) ** 2))
    colour *= 1 - 0.10 * cheek[:, None] * np.array([0.2, 1, 1], np.float32)
    red = (0.80, 0.52, 0.52) if person.gender == "woman" else (0.86, 0.66, 0.63)
    _mix(colour, skin_colour * np.array(red, np.float32), 0.85 * front * np.clip((points.lips - 0.45) / 0.2, 0, 1))
    along = (x - eye_x) / 0.024
    across = (z - (eye_z + 0.024 - 0.006 * along**2 - 0.001 * along)) / (0.0045 if person.gender == "man" else 0.0032)
    _mix(colour, 0.7 * hair_colour, 0.8 * front * np.clip(1.3 - (along**4 + across**2), 0, 1))
    socket = front * np.exp(-(((x - eye_x) / 0.02) ** 2 + ((z - eye_z) / 0.012) ** 2))
    colour *= 1 - 0.14 * socket[:, None]


def _paint_clothes(body: Body, person: Person, points: SurfacePoints, colour: Array) -> None:
    z = points.template[:, 2]
    trousers = points.cloth & (z < body.anatomy.hip + 0.07) & (points.along_arm < 0.3)
    top = points.cloth & ~trousers
    colour[trousers] = CLOTHES[person.trousers_colour]
    colour[trousers & (z < body.anatomy.ankle)] = _SHOES
    colour[top] = CLOTHES[person.top_colour]
    if person.stripes is not None:
        colour[top & (np.floor(z / 0.035).astype(int) % 2 == 0)] = CLOTHES[person.stripes]


def _mix(colour: Array, other: Array, share: Array) -> None:
    colour += share[:, None] * (other - colour)
