"""One synthetic picture with everything that is known about it, from (seed, number) and the size alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fairhuman.errors import DataError
from fairhuman.record import Box
from fairhuman.synth.body import COCO_KEYPOINTS, Array, Body
from fairhuman.synth.cast import Caster, RayHits
from fairhuman.synth.person import POSES, Person, random_person
from fairhuman.synth.pose import Pose
from fairhuman.synth.scene import Camera, Light, draw_background, half_body_camera, random_light
from fairhuman.synth.settings import LARGEST_SIZE, SMALLEST_SIZE
from fairhuman.synth.shade import SurfacePoints, points_hit, shade
from fairhuman.synth.surface import Surface, build_surface, on_face

SUBPIXELS = 2
REGIONS = ("face", "left_hand", "right_hand")  # what has a box and a visibility
MASKS = ("face", "hand", "left_hand", "right_hand", "person")  # `hand` is both hands
_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky")
_HAND_KEYPOINTS = ("wrist", *(f"{finger}{joint}" for finger in _FINGERS for joint in range(1, 5)))
# COCO-WholeBody's names and order, without feet and face.
KEYPOINTS = (*COCO_KEYPOINTS, *(f"{side}_hand_{name}" for side in ("left", "right") for name in _HAND_KEYPOINTS))
_SMALLEST_BOX = 5e-4  # of the picture
_GAMMA = 1 / 1.15


@dataclass(frozen=True, slots=True)
class Rendering:
    """A picture [H, W, 3] (uint8) of one person and what is in it.

    Attributes:
        caption: made from the same parameters as the picture.
        masks: coverage of each pixel by what is seen of a region, [H, W] uint8, by the names in `MASKS`.
        boxes: tight boxes of the masks of `REGIONS`, to half a pixel; a region with less than 0.05 % of the
            picture in sight has none.
        visibility: of the surface points of each of `REGIONS` that look to the camera, the share in [0, 1]
            that lies in the picture with nothing before it.
        depth: metres along the optical axis at the pixel's nearest sample, [H, W] float32, 0 = background.
        keypoints: x, y in pixels and whether it is in sight, [59, 3], in the order of `KEYPOINTS`.

    """

    image: Array
    caption: str
    masks: Mapping[str, Array]
    boxes: Mapping[str, Box]
    visibility: Mapping[str, float]
    depth: Array
    keypoints: Array
    person: Person


@dataclass(frozen=True, slots=True)
class Scene:
    """A person before a camera; `generator` goes on with the draw of the background."""

    person: Person
    posture: Pose
    surface: Surface
    camera: Camera
    light: Light
    generator: np.random.Generator


def render(body: Body, seed: int, number: int, size: int, pose: str | None = None) -> Rendering:
    """Render the `number`-th picture of `seed` at `size` x `size` pixels; `pose` overrides the drawn one.

    The same arguments give the same picture in any order and process; another size gives the same scene.

    Raises:
        DataError: a size outside 16..4096, a negative seed or number, an unknown pose.
    """
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise DataError(f"size must be {SMALLEST_SIZE} to {LARGEST_SIZE} pixels, found {size}")
    if min(seed, number) < 0:
        raise DataError(f"seed and number must not be negative, found {seed} and {number}")
    if pose is not None and pose not in POSES:
        raise DataError(f"pose must be one of {', '.join(POSES)}, found {pose!r}")
    scene = build_scene(body, seed, number, pose)
    surface, camera, light = scene.surface, scene.camera, scene.light
    samples = size * SUBPIXELS
    background, words = draw_background(samples, scene.generator)
    caster = Caster(surface.vertices, surface.normals, surface.triangles)
    rays = camera.rays(samples)
    hits = caster.cast(camera.eye, rays, light.direction)
    met = np.flatnonzero(hits.face >= 0)
    seen = RayHits(hits.face[met], hits.weights[met], hits.distance[met], hits.lit[met])
    points = points_hit(body, scene.person, surface, seen, rays[met])
    colours = background.reshape(-1, 3)
    colours[met] = shade(body, scene.person, points, rays[met], light, seen.lit, camera.forward)
    image = _shrink(np.clip(colours, 0, 1), size) ** _GAMMA
    masks, boxes = _regions(points, met, size)
    depth = np.full(samples * samples, np.inf, np.float32)
    depth[met] = seen.distance * (rays[met] @ camera.forward)
    nearest = depth.reshape(size, SUBPIXELS, size, SUBPIXELS).min((1, 3))
    return Rendering(
        image=(image * 255 + 0.5).astype(np.uint8),
        caption=f"{scene.person.describe()}, {words}",
        masks=masks,
        boxes=boxes,
        visibility=_visibility(body, scene, caster),
        depth=np.where(np.isfinite(nearest), nearest, 0),
        keypoints=_keypoints(body, scene, caster, size),
        person=scene.person,
    )


def build_scene(body: Body, seed: int, number: int, pose: str | None = None) -> Scene:
    """Draw all that doesn't depend on the size of the picture; arguments as those of `render`."""
    generator = np.random.default_rng((seed, number))
    person = random_person(generator)
    if pose is not None:
        person = replace(person, pose=pose)
    resting, heads = body.at_rest(person)
    posture = Pose(body, person, heads, generator)
    surface = build_surface(body, person, body.posed(resting, posture.rotations, posture.translations))
    head, hand = (
        surface.vertices[body.skin[share[body.skin] > 0.9]] for share in (body.anatomy.head, body.anatomy.hand)
    )
    camera = half_body_camera(head, hand, generator)
    return Scene(person, posture, surface, camera, random_light(camera, generator), generator)


def _shrink(samples: Array, size: int) -> Array:
    return np.asarray(samples.reshape(size, SUBPIXELS, size, SUBPIXELS, -1).mean((1, 3)))


def _regions(points: SurfacePoints, met: Array, size: int) -> tuple[dict[str, Array], dict[str, Box]]:
    """Return masks and boxes of what the rays number `met` hit."""
    hand = (points.hand > 0.5) & ~points.cloth
    left = points.template[:, 0] > 0
    inside = {
        "face": points.face,
        "hand": hand,
        "left_hand": hand & left,
        "right_hand": hand & ~left,
        "person": np.ones(len(met), bool),
    }
    side = size * SUBPIXELS
    masks, boxes = {}, {}
    for name in MASKS:
        sampled = np.zeros(side * side, np.float32)
        sampled[met[inside[name]]] = 1
        masks[name] = (_shrink(sampled, size)[..., 0] * 255 + 0.5).astype(np.uint8)
    for name in REGIONS:
        rows, columns = np.divmod(met[inside[name]], side)
        if len(rows) >= _SMALLEST_BOX * side * side:
            edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            boxes[name] = Box(*(float(edge) / SUBPIXELS for edge in edges))
    return masks, boxes


def _in_sight(points: Array, camera: Camera, caster: Caster, tolerance: Array) -> Array:
    """Say which points [N, 3] lie in the picture with nothing nearer than `tolerance` [N] metres before them."""
    position, _ = camera.project(points, 1)
    relative = points - camera.eye
    distance = np.linalg.norm(relative, axis=1)
    hits = caster.cast(camera.eye, relative / distance[:, None])
    free = (hits.face < 0) | (hits.distance > distance - tolerance)
    return np.asarray(free & ((position > 0) & (position < 1)).all(1))


def _visibility(body: Body, scene: Scene, caster: Caster) -> dict[str, float]:
    skin, surface, camera = body.skin, scene.surface, scene.camera
    template = body.template[skin]
    hand = body.anatomy.hand[skin] > 0.5
    members = {
        "face": on_face(body, scene.person, template, body.anatomy.head[skin]),
        "left_hand": hand & (template[:, 0] > 0),
        "right_hand": hand & (template[:, 0] < 0),
    }
    shares = {}
    for name, chosen in members.items():
        vertices = skin[chosen]
        towards = np.einsum("na,na->n", surface.normals[vertices], surface.vertices[vertices] - camera.eye) < 0
        facing = surface.vertices[vertices[towards]]
        shares[name] = float(_in_sight(facing, camera, caster, np.full(len(facing), 0.004)).mean())
    return shares


def _keypoints(body: Body, scene: Scene, caster: Caster, size: int) -> Array:
    """Project the key points; joints lie inside the limbs, so a few centimetres before them don't hide them."""
    posture, surface, camera = scene.posture, scene.surface, scene.camera
    points = list(body.keypoint_weights @ surface.vertices)
    for side in "LR":
        points.append(posture.joint(f"wrist.{side}"))
        for finger in range(1, 6):
            points += [posture.joint(f"finger{finger}-{joint}.{side}") for joint in (1, 2, 3)]
            points.append(surface.vertices[body.fingertips[side, finger]])
    tolerance = np.array([0.03] * 5 + [0.10] * 12 + [0.03] * 42)
    stacked = np.stack(points)
    position, _ = camera.project(stacked, size)
    return np.concatenate([position, _in_sight(stacked, camera, caster, tolerance)[:, None]], axis=1)
