"""Ray casting on a mesh, on the CPU, with NVIDIA Warp."""

# Warp reads the types of kernel arguments from annotations that call wp.array.
# mypy: disable-error-code="valid-type,no-untyped-def,untyped-decorator"

from dataclasses import dataclass

import numpy as np
import warp as wp

from fairhuman.synth.body import Array
from fairhuman.synth.cache import cache_error
from fairhuman.synth.engine import start_warp

_FARTHEST = 100.0
_SHADOW_BIAS = 0.006
_NO_LIGHT = np.zeros(3)


@dataclass(frozen=True, slots=True)
class RayHits:
    """Hits of N rays; `face` is -1 for a miss, and the other values are then 0.

    Attributes:
        face: index of the triangle, [N].
        weights: barycentric weights of its corners, [N, 3], each row sums to 1.
        distance: distance along the ray in metres, [N].
        lit: whether light reaches the point, [N].
    """

    face: Array
    weights: Array
    distance: Array
    lit: Array


@wp.kernel
def _cast(
    mesh: wp.uint64,
    triangles: wp.array(dtype=wp.int32),
    normals: wp.array(dtype=wp.vec3),
    origin: wp.vec3,
    directions: wp.array(dtype=wp.vec3),
    light: wp.vec3,
    face: wp.array(dtype=wp.int32),
    weights: wp.array(dtype=wp.vec3),
    distance: wp.array(dtype=wp.float32),
    lit: wp.array(dtype=wp.int32),
):
    ray = wp.tid()
    direction = directions[ray]
    query = wp.mesh_query_ray(mesh, origin, direction, _FARTHEST)
    if not query.result:
        face[ray] = -1
        return
    corner = query.face * 3
    third = 1.0 - query.u - query.v
    normal = wp.normalize(
        normals[triangles[corner]] * query.u
        + normals[triangles[corner + 1]] * query.v
        + normals[triangles[corner + 2]] * third
    )
    facing = wp.dot(normal, direction)
    if facing > 0.0:
        normal = wp.normalize(normal - direction * (facing * 1.01))
    face[ray] = query.face
    weights[ray] = wp.vec3(query.u, query.v, third)
    distance[ray] = query.t
    if wp.dot(normal, light) > 0.0:
        start = origin + direction * query.t + normal * _SHADOW_BIAS
        if not wp.mesh_query_ray_anyhit(mesh, start, light, 3.0):
            lit[ray] = 1


def compile_kernel() -> None:
    """Compile the kernel, which takes seconds, unless it is cached.

    Raises:
        FairHumanError: the cache can't be written.
    """
    start_warp()
    try:
        wp.load_module(device="cpu")
    except OSError as error:
        raise cache_error(error) from error


class Caster:
    """Casts rays through one mesh: vertices and unit normals [V, 3], triangles [F, 3]."""

    def __init__(self, vertices: Array, normals: Array, triangles: Array) -> None:
        start_warp()
        self._device = wp.get_device("cpu")
        self._normals = self._vectors(normals)
        self._mesh = wp.Mesh(
            points=self._vectors(vertices), indices=wp.array(triangles.reshape(-1), dtype=wp.int32, device=self._device)
        )

    def cast(self, origin: Array, directions: Array, light: Array = _NO_LIGHT) -> RayHits:
        """Cast rays from `origin` [3] along unit `directions` [N, 3].

        `light` [3] is the unit direction to the light; without it, no shadow rays are cast and nothing is lit.
        """
        count = len(directions)
        face = wp.zeros(count, dtype=wp.int32, device=self._device)
        weights = wp.zeros(count, dtype=wp.vec3, device=self._device)
        distance = wp.zeros(count, dtype=wp.float32, device=self._device)
        lit = wp.zeros(count, dtype=wp.int32, device=self._device)
        wp.launch(
            _cast,
            dim=count,
            inputs=[
                self._mesh.id,
                self._mesh.indices,
                self._normals,
                wp.vec3(*(float(value) for value in origin)),
                self._vectors(directions),
                wp.vec3(*(float(value) for value in light)),
            ],
            outputs=[face, weights, distance, lit],
            device=self._device,
        )
        return RayHits(face.numpy(), weights.numpy(), distance.numpy(), lit.numpy().astype(bool))

    def _vectors(self, values: Array) -> "wp.array":
        return wp.array(np.ascontiguousarray(values, dtype=np.float32), dtype=wp.vec3, device=self._device)
