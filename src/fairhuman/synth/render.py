"""Render one synthetic picture with its annotations, from (seed, number) and the size alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fairhuman.errors import DataError
from fairhuman.record import Box
from fairhuman.synth.body import COCO_KEYPOINTS, Array, Body
from fairhuman.synth.cast import Caster, RayHits
from fairhuman.synth.person import POSES, Person, random_person
from fairhuman.synth.pose import Pose
from fairhuman.synth.scene import Camera, Light, draw_background, full_body_camera, half_body_camera, random_light
from fairhuman.synth.settings import LARGEST_SIZE, SMALLEST_SIZE, Framing
from fairhuman.synth.shade import SurfacePoints, interpolate_hits, shade
from fairhuman.synth.surface import Surface, SurfacePart, build_surface, is_on_face

SUBPIXELS = 2
REGIONS = ("face", "left_hand", "right_hand")  # regions with a box and a visibility
MASKS = ("face", "hand", "left_hand", "right_hand", "person")  # `hand` is both hands
PARTS = ("head", "upper_body", "legs", "feet", "eyes", "mouth")  # rendered if asked for; the first four are disjoint
_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky")
_HAND_KEYPOINTS = ("wrist", *(f"{finger}{joint}" for finger in _FINGERS for joint in range(1, 5)))
# COCO-WholeBody's names and order, without feet and face.
KEYPOINTS = (*COCO_KEYPOINTS, *(f"{side}_hand_{name}" for side in ("left", "right") for name in _HAND_KEYPOINTS))
_MIN_BOX_SHARE = 5e-4  # of the picture's area
_GAMMA = 1 / 1.15
_LIPS = 0.55  # weight of the bones around the mouth from which skin counts as lips; shading mixes from 0.45 to 0.65


@dataclass(frozen=True, slots=True)
class Rendering:
    """A picture [H, W, 3] (uint8) of one person with its annotations.

    Attributes:
        caption: generated from the same parameters as the picture.
        masks: coverage of each pixel by the visible part of a region, [H, W] uint8, by the names in `MASKS`,
            and in `PARTS` if they are asked for. The joints of hips and ankles divide the body: legs are what lies
            between them, feet what lies below; the head is what moves with its bones.
        boxes: tight boxes of the masks of `REGIONS`, to half a pixel; a region that covers less than 0.05 % of the
            picture has none.
        visibility: for each of `REGIONS`, the share in [0, 1] of camera-facing surface points that lie in the
            picture and aren't occluded.
        depth: metres along the optical axis at the pixel's nearest sample, [H, W] float32, 0 = background.
        keypoints: x, y in pixels and visibility (0 or 1), [59, 3], in the order of `KEYPOINTS`.
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
    """A person in front of a camera; `generator` continues with the draw of the background."""

    person: Person
    posture: Pose
    surface: Surface
    camera: Camera
    light: Light
    generator: np.random.Generator


def render(
    body: Body,
    seed: int,
    number: int,
    size: int,
    pose: str | None = None,
    framing: Framing = "half_body",
    parts: bool = False,
) -> Rendering:
    """Render the `number`-th picture of `seed` at `size` x `size` pixels; `pose` overrides the random pose.

    `parts` adds the masks of `PARTS`.

    The result depends only on the arguments; another size gives the same scene.

    Raises:
        DataError: the size is outside 16..4096, seed or number is negative, or the pose is unknown.
    """
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise DataError(f"size must be {SMALLEST_SIZE} to {LARGEST_SIZE} pixels, found {size}")
    if min(seed, number) < 0:
        raise DataError(f"seed and number must not be negative, found {seed} and {number}")
    if pose is not None and pose not in POSES:
        raise DataError(f"pose must be one of {', '.join(POSES)}, found {pose!r}")
    scene = build_scene(body, seed, number, pose, framing)
    surface, camera, light = scene.surface, scene.camera, scene.light
    samples = size * SUBPIXELS
    background, words = draw_background(samples, scene.generator)
    caster = Caster(surface.vertices, surface.normals, surface.triangles)
    rays = camera.rays(samples)
    hits = caster.cast(camera.eye, rays, light.direction)
    hit = np.flatnonzero(hits.face >= 0)
    on_body = RayHits(hits.face[hit], hits.weights[hit], hits.distance[hit], hits.lit[hit])
    points = interpolate_hits(body, scene.person, surface, on_body, rays[hit])
    colours = background.reshape(-1, 3)
    colours[hit] = shade(body, scene.person, points, rays[hit], light, on_body.lit, camera.forward)
    image = _downsample(np.clip(colours, 0, 1), size) ** _GAMMA
    inside = _inside(points) | (_inside_parts(body, points) if parts else {})
    masks, boxes = _regions(inside, hit, size)
    depth = np.full(samples * samples, np.inf, np.float32)
    depth[hit] = on_body.distance * (rays[hit] @ camera.forward)
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


def build_scene(body: Body, seed: int, number: int, pose: str | None = None, framing: Framing = "half_body") -> Scene:
    """Draw everything that doesn't depend on the size of the picture; arguments as for `render`."""
    generator = np.random.default_rng((seed, number))
    person = random_person(generator)
    if pose is not None:
        person = replace(person, pose=pose)
    resting, heads = body.at_rest(person)
    posture = Pose(body, person, heads, generator)
    surface = build_surface(body, person, body.posed(resting, posture.rotations, posture.translations), framing)
    if framing == "full_body":
        camera = full_body_camera(surface.vertices[np.unique(body.whole_skin)], generator)
    else:
        head, hand = (
            surface.vertices[body.skin[share[body.skin] > 0.9]] for share in (body.anatomy.head, body.anatomy.hand)
        )
        camera = half_body_camera(head, hand, generator)
    return Scene(person, posture, surface, camera, random_light(camera, generator), generator)


def _downsample(samples: Array, size: int) -> Array:
    return np.asarray(samples.reshape(size, SUBPIXELS, size, SUBPIXELS, -1).mean((1, 3)))


def _inside(points: SurfacePoints) -> dict[str, Array]:
    """Return whether each of N points belongs to a region, [N], by the names in `MASKS`."""
    hand = (points.hand > 0.5) & ~points.cloth
    left = points.template[:, 0] > 0
    return {
        "face": points.face,
        "hand": hand,
        "left_hand": hand & left,
        "right_hand": hand & ~left,
        "person": np.ones(len(points.part), bool),
    }


def _inside_parts(body: Body, points: SurfacePoints) -> dict[str, Array]:
    """Return whether each of N points belongs to a part of the body, [N], by the names in `PARTS`."""
    skin, z = points.part == SurfacePart.SKIN, points.template[:, 2]
    eyes = (points.part == SurfacePart.EYE) | (points.part == SurfacePart.LASH)
    head = ~skin | (points.head > 0.5)
    below = ~head & (points.along_arm < 0) & (points.hand < 0.5)  # neither head nor arms
    feet = below & (z < body.anatomy.ankle)
    legs = below & ~feet & (z < body.anatomy.hip)
    mouth = points.face & skin & (points.lips > _LIPS)
    return {"head": head, "upper_body": ~head & ~legs & ~feet, "legs": legs, "feet": feet, "eyes": eyes, "mouth": mouth}


def _regions(inside: Mapping[str, Array], hit: Array, size: int) -> tuple[dict[str, Array], dict[str, Box]]:
    """Return masks of all regions and boxes of `REGIONS`, from the points hit by the rays with indices `hit`."""
    side = size * SUBPIXELS
    masks, boxes = {}, {}
    for name in inside:
        sampled = np.zeros(side * side, np.float32)
        sampled[hit[inside[name]]] = 1
        masks[name] = (_downsample(sampled, size)[..., 0] * 255 + 0.5).astype(np.uint8)
    for name in REGIONS:
        rows, columns = np.divmod(hit[inside[name]], side)
        if len(rows) >= _MIN_BOX_SHARE * side * side:
            edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            boxes[name] = Box(*(float(edge) / SUBPIXELS for edge in edges))
    return masks, boxes


def _is_visible(points: Array, camera: Camera, caster: Caster, tolerance: Array) -> Array:
    """Whether each point [N, 3] lies in the picture and isn't occluded by more than `tolerance` [N] metres."""
    position, _ = camera.project(points, 1)
    relative = points - camera.eye
    distance = np.linalg.norm(relative, axis=1)
    hits = caster.cast(camera.eye, relative / distance[:, None])
    unoccluded = (hits.face < 0) | (hits.distance > distance - tolerance)
    return np.asarray(unoccluded & ((position > 0) & (position < 1)).all(1))


def _visibility(body: Body, scene: Scene, caster: Caster) -> dict[str, float]:
    skin, surface, camera = body.skin, scene.surface, scene.camera
    template = body.template[skin]
    hand = body.anatomy.hand[skin] > 0.5
    members = {
        "face": is_on_face(body, scene.person, template, body.anatomy.head[skin]),
        "left_hand": hand & (template[:, 0] > 0),
        "right_hand": hand & (template[:, 0] < 0),
    }
    shares = {}
    for name, chosen in members.items():
        vertices = skin[chosen]
        faces_camera = np.einsum("na,na->n", surface.normals[vertices], surface.vertices[vertices] - camera.eye) < 0
        facing = surface.vertices[vertices[faces_camera]]
        shares[name] = float(_is_visible(facing, camera, caster, np.full(len(facing), 0.004)).mean())
    return shares


def _keypoints(body: Body, scene: Scene, caster: Caster, size: int) -> Array:
    """Project the key points; joints lie inside limbs, so a few centimetres in front don't occlude them."""
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
    return np.concatenate([position, _is_visible(stacked, camera, caster, tolerance)[:, None]], axis=1)
