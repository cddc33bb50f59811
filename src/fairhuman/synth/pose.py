"""Poses of torso, head, arms, hands and fingers, as a world rotation and translation for each bone.

Directions are (outward, forward, up) relative to the arm, so that one row of the table serves both sides.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from fairhuman.synth.body import Array, Body
from fairhuman.synth.person import Person, choose

Direction = tuple[float, float, float]
_X, _Y, _Z = np.eye(3)
_FORWARD = -_Y


@dataclass(frozen=True, slots=True)
class ArmPose:
    """Pose of one arm.

    Attributes:
        wrist: position relative to the shoulder in arm lengths, or with `to_head` to the head's joint in metres.
        elbow: direction in which the elbow points.
        palm: direction that the palm faces.
        hands: hand shapes of `_hand_shape` and their relative frequency.
        wrist_noise, palm_noise: standard deviations, in arm lengths and of the unit direction.
        lift: elevation of the shoulder in degrees.
        bend: maximum random bend of the wrist in degrees, up-down and sideways.
    """

    wrist: Direction
    elbow: Direction
    palm: Direction
    hands: Mapping[str, float]
    wrist_noise: float
    palm_noise: float = 0.0
    lift: float = 3.0
    bend: tuple[float, float] = (15.0, 12.0)
    to_head: bool = False


_OPEN = {"open": 6.0, "flat": 2.0, "relaxed": 2.0}
_REST = {"flat": 1.0, "relaxed": 1.0}
ARM_POSES: Mapping[str, ArmPose] = {
    "waving": ArmPose((0.32, 0.28, 0.40), (0.8, -0.1, -0.7), (0, 1, 0), _OPEN, 0.08, 0.25, lift=18),
    "hands up": ArmPose((0.18, 0.48, 0.16), (0.7, -0.2, -1), (0, 1, 0), _OPEN, 0.09, 0.25, lift=8),
    "hands on hips": ArmPose(
        (0.12, 0.14, -0.66), (1.2, -0.55, -0.1), (-1, 0, 0), {"relaxed": 1}, 0.03, 0.1, bend=(10, 0)
    ),
    "arms crossed": ArmPose((-0.36, 0.40, -0.44), (0.9, 0.1, -1), (0, -1, -0.3), _REST, 0.02),
    "pointing": ArmPose((0.45, 0.45, 0.22), (0.6, -0.2, -1), (0, 0.35, -0.7), {"pointing": 1}, 0.08, 0.3),
    "hand on chest": ArmPose((-0.18, 0.40, -0.27), (1, 0.1, -0.8), (0, -1, 0), _REST, 0.03, 0.1),
    "thumbs up": ArmPose((0.05, 0.52, -0.10), (0.8, -0.1, -1), (-1, 0.2, 0), {"thumb": 1}, 0.06),
    "peace sign": ArmPose((0.18, 0.42, 0.26), (0.8, -0.1, -0.8), (0, 1, 0), {"peace": 1}, 0.07, 0.2, lift=12),
    "fists": ArmPose((0.0, 0.50, 0.02), (0.8, -0.1, -1), (-1, 0, 0), {"fist": 1}, 0.08, 0.4),
    "hands clasped": ArmPose((-0.24, 0.42, -0.50), (1, -0.1, -0.5), (0, -1, 0.4), {"relaxed": 1}, 0.02),
    "hand on chin": ArmPose(
        (0.07, 0.15, -0.19), (0.6, 0.2, -1), (-0.5, -1, 0), {"relaxed": 1, "fist": 1}, 0.02, to_head=True
    ),
    "shrugging": ArmPose((0.42, 0.42, -0.28), (0.3, -0.5, -1), (0.2, 0.5, 1), _OPEN, 0.04, 0.15, lift=14),
    "saluting": ArmPose(
        (0.25, 0.07, 0.05),
        (1, 0.1, -0.3),
        (-0.3, 0.5, -0.8),
        {"flat": 1},
        0.01,
        0.05,
        lift=10,
        bend=(5, 5),
        to_head=True,
    ),
    "down": ArmPose((0.16, 0.06, -0.93), (0.4, -1, -0.2), (-1, 0, 0), {"relaxed": 1}, 0.02),
}
_ONE_ARM = ("waving", "pointing", "hand on chest", "thumbs up", "peace sign", "hand on chin", "saluting")
_OTHER_ARM = {"hands on hips": 3.0, "down": 2.5, "hands clasped": 2.5, "hands up": 2.0}
_MAX_TWIST = 115.0


class Pose:
    """World rotations [J, 3, 3] and translations [J, 3] of bones: a bone maps x at rest to R x + t.

    Drawn by `generator` for `person`, whose bones at rest have their heads at `heads` [J, 3].
    """

    def __init__(self, body: Body, person: Person, heads: Array, generator: np.random.Generator) -> None:
        self._body, self._heads, self._generator = body, heads, generator
        self.rotations = np.tile(np.eye(3), (len(heads), 1, 1))
        self.translations = np.zeros((len(heads), 3))
        self._pose_trunk()
        leading = "LR"[generator.integers(2)]
        for side in "LR":
            alone = person.pose in _ONE_ARM and side != leading
            name = choose(generator, _OTHER_ARM) if alone else person.pose
            # Of two arms in front of the body, one lies above the other.
            raise_by = 0.0 if name not in ("arms crossed", "hands clasped") else 0.03 if side == leading else -0.03
            self._pose_arm(side, ARM_POSES[name], raise_by)
        self._update_translations()

    def joint(self, name: str) -> Array:
        """Return the current position of a bone's head, [3]."""
        bone = self._body.bones[name]
        return np.asarray(self.rotations[bone] @ self._heads[bone] + self.translations[bone])

    def _set(self, name: str, rotation: Rotation) -> None:
        self.rotations[self._body.bones[name]] = rotation.as_matrix()

    def _random_rotation(self, *limits: float) -> Rotation:
        """Draw a rotation about z, x and y, each uniform within ± degrees."""
        return Rotation.from_euler("ZXY", [self._generator.uniform(-a, a) for a in limits], degrees=True)

    def _update_translations(self) -> None:
        """Compute all translations: the head of each bone moves with its parent."""
        for bone, parent in enumerate(self._body.parents):
            head = self._heads[bone]
            carried = head if parent < 0 else self.rotations[parent] @ head + self.translations[parent]
            self.translations[bone] = carried - self.rotations[bone] @ head

    def _pose_trunk(self) -> None:
        torso, head = self._random_rotation(6, 4, 4), self._random_rotation(22, 9, 8)
        for number, name in enumerate(("spine05", "spine04", "spine03", "spine02", "spine01"), start=1):
            self._set(name, _fraction(torso, number / 5))
        self._torso = torso
        for number, name in enumerate(("neck01", "neck02", "neck03", "head"), start=1):
            self._set(name, _fraction(head, number / 4) * torso)
        gaze = Rotation.from_euler("Z", self._generator.uniform(-10, 10), degrees=True) * head * torso
        self._set("eye.L", gaze)
        self._set("eye.R", gaze)

    def _pose_arm(self, side: str, pose: ArmPose, raise_by: float) -> None:
        outward = 1.0 if side == "L" else -1.0
        heads = {
            name: self._heads[self._body.bones[f"{name}.{side}"]] for name in ("upperarm01", "lowerarm01", "wrist")
        }

        def world(direction: Direction) -> Array:
            return np.asarray(self._torso.apply([outward * direction[0], -direction[1], direction[2]]))

        collar = Rotation.from_rotvec(-outward * np.radians(pose.lift) * self._torso.apply(_Y)) * self._torso
        for name in ("clavicle", "shoulder01"):
            self._set(f"{name}.{side}", collar)
        self._update_translations()
        shoulder = self.joint(f"upperarm01.{side}")
        upper_rest, lower_rest = heads["lowerarm01"] - heads["upperarm01"], heads["wrist"] - heads["lowerarm01"]
        lengths = float(np.linalg.norm(upper_rest)), float(np.linalg.norm(lower_rest))
        scale = sum(lengths)
        noise = self._generator.normal(0, pose.wrist_noise, 3) * scale + [0, 0, raise_by]
        wrist = (
            self.joint("head") + world(pose.wrist) if pose.to_head else shoulder + world(pose.wrist) * scale
        ) + noise
        elbow, wrist = _two_bone_ik(shoulder, wrist, lengths, world(pose.elbow))
        upper, lower = _unit(elbow - shoulder), _unit(wrist - elbow)
        hinge = np.cross(upper, lower)
        rest_hinge = np.cross(_unit(upper_rest), _FORWARD)
        upper_arm = _frame(upper, hinge) * _frame(upper_rest, rest_hinge).inv()
        forearm = _frame(lower, hinge) * _frame(lower_rest, rest_hinge).inv()
        swing = _shortest_rotation(collar.apply(_unit(upper_rest)), upper) * collar
        self._set(f"upperarm01.{side}", _fraction(upper_arm * swing.inv(), 0.5) * swing)
        self._set(f"upperarm02.{side}", upper_arm)
        self._set(f"lowerarm01.{side}", forearm)
        palm = world(pose.palm) + self._generator.normal(0, 1, 3) * pose.palm_noise
        self._pose_hand(side, forearm, lower, palm, pose)

    def _pose_hand(self, side: str, forearm: Rotation, along: Array, palm: Array, pose: ArmPose) -> None:
        """Twist the forearm until the palm faces `palm`, bend the wrist, curl the fingers."""
        heads = {
            name: self._heads[self._body.bones[f"{name}.{side}"]]
            for name in ("wrist", "finger2-1", "finger3-1", "finger5-1")
        }
        normal = _unit(np.cross(heads["finger2-1"] - heads["wrist"], heads["finger5-1"] - heads["wrist"]))
        if normal @ [-1 if side == "L" else 1, 0, -1] < 0:
            normal = -normal
        current, target = (vector - along * (vector @ along) for vector in (forearm.apply(normal), palm))
        twist = 0.0
        if np.linalg.norm(target) > 0.15:
            twist = float(np.degrees(np.arctan2(np.cross(current, target) @ along, current @ target)))
        twist = float(np.clip(twist, -_MAX_TWIST, _MAX_TWIST))
        twisted = _rotation_about(along, twist) * forearm
        self._set(f"lowerarm02.{side}", _rotation_about(along, 0.55 * twist) * forearm)
        palm_normal, pointing = twisted.apply(normal), twisted.apply(_unit(heads["finger3-1"] - heads["wrist"]))
        bend = [self._generator.uniform(-limit, limit) for limit in pose.bend]
        flexion = _rotation_about(np.cross(pointing, palm_normal), bend[0])
        hand = _rotation_about(palm_normal, bend[1]) * flexion * twisted
        self._set(f"wrist.{side}", hand)
        across = _unit(heads["finger2-1"] - heads["finger5-1"])
        fingers, spread = _hand_shape(choose(self._generator, pose.hands), self._generator)
        for finger, curls in fingers.items():
            joints = [self._body.bones[f"finger{finger}-{joint}.{side}"] for joint in (1, 2, 3)]
            if finger == 1:
                direction = _unit(self._heads[joints[2]] - self._heads[joints[0]])
                axis = np.cross(direction, _unit(0.6 * normal - across))
                base = hand
            else:
                self._set(f"metacarpal{finger - 1}.{side}", hand)
                direction = _unit(self._heads[joints[1]] - self._heads[joints[0]])
                axis = np.cross(direction, normal)
                sign = float(np.sign(np.cross(normal, across) @ direction)) or 1.0
                base = hand * _rotation_about(normal, -(3.3 - finger) * spread * sign)
            for joint, angle in zip(joints, np.cumsum(curls), strict=True):
                self.rotations[joint] = (base * _rotation_about(axis, float(angle))).as_matrix()


def _hand_shape(name: str, generator: np.random.Generator) -> tuple[dict[int, list[float]], float]:
    """Return the bends of the three joints of each finger (1 is the thumb) and the spread, all in degrees."""

    def noise(size: float) -> float:
        return float(generator.normal(0, size))

    def straight() -> list[float]:
        return [3 + noise(4), 5 + noise(4), 4 + noise(3)]

    def bent() -> list[float]:
        return [78 + noise(5), 92 + noise(5), 55 + noise(6)]

    fingers = {finger: straight() for finger in (2, 3, 4, 5)}
    thumb, spread = [0.0, 5 + noise(5), 5 + noise(5)], 1 + noise(2)
    closed: tuple[int, ...] = ()
    if name == "open":
        spread = 7 + abs(noise(3))
    elif name == "flat":
        thumb, spread = [5.0, 5.0, 5.0], -1.0
    elif name == "relaxed":
        curl = 20 + abs(noise(10))
        fingers = {
            k: [curl + noise(4) + 3 * (k - 2), curl + noise(5) + 4 * (k - 2), 0.7 * curl + noise(4)] for k in fingers
        }
        thumb = [10.0, 15.0, 15.0]
    elif name == "fist":
        closed, thumb = (2, 3, 4, 5), [28.0, 35.0, 40.0]
    elif name == "pointing":
        closed, thumb = (3, 4, 5), [25.0, 30.0, 35.0]
    elif name == "peace":
        closed, thumb, spread = (4, 5), [28.0, 40.0, 40.0], 9.0
    elif name == "thumb":
        closed, thumb = (2, 3, 4, 5), [-12.0, -5.0, -5.0]
    return {1: thumb} | fingers | {finger: bent() for finger in closed}, spread


def _two_bone_ik(start: Array, end: Array, lengths: tuple[float, float], pole: Array) -> tuple[Array, Array]:
    """Inverse kinematics of two bones: return the middle joint, bent towards `pole`, and the end, moved into reach."""
    first, second = lengths
    reach = end - start
    distance = float(np.clip(np.linalg.norm(reach), abs(first - second) + 0.05 * sum(lengths), 0.985 * sum(lengths)))
    towards = _unit(reach)
    along = (first**2 - second**2 + distance**2) / (2 * distance)
    aside = np.sqrt(max(first**2 - along**2, 1e-8))
    return start + towards * along + _unit(pole - towards * (pole @ towards)) * aside, start + towards * distance


def _unit(vector: Array) -> Array:
    return np.asarray(vector / (np.linalg.norm(vector) + 1e-9))


def _rotation_about(axis: Array, degrees: float) -> Rotation:
    return Rotation.from_rotvec(_unit(axis) * np.radians(degrees))


def _fraction(rotation: Rotation, share: float) -> Rotation:
    """Return a rotation by a share of the angle."""
    return Rotation.from_rotvec(share * rotation.as_rotvec())


def _frame(x: Array, y: Array) -> Rotation:
    """Return the rotation to axes with the first along x and the second as close to y as possible."""
    first = _unit(x)
    second = _unit(y - first * (y @ first))
    return Rotation.from_matrix(np.stack([first, second, np.cross(first, second)], axis=1))


def _shortest_rotation(start: Array, end: Array) -> Rotation:
    """Return the shortest rotation from the unit vector `start` to `end`."""
    axis = np.cross(start, end)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-6:
        return Rotation.identity()
    return Rotation.from_rotvec(axis / sine * np.arctan2(sine, start @ end))
