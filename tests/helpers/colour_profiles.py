"""ICC profiles of version 2, made from their numbers, and what they mean by an independent statement of the formula."""

import struct

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
# X, Y, Z of red, green and blue, adapted to D50, as in the profiles of these spaces
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SWAPPED = SRGB[::-1]  # what is stored as red is blue
CURVE = "sRGB"  # the curve of sRGB; else an exponent


def rgb_profile(primaries=SRGB, curve=CURVE, name="test") -> bytes:
    """A profile of RGB by the XYZ of its primaries and its curve."""
    tags = {b"wtpt": _xyz(D50)}
    tags |= {b"%cXYZ" % letter: _xyz(xyz) for letter, xyz in zip(b"rgb", primaries, strict=True)}
    tags |= {b"%cTRC" % letter: _curve(curve) for letter in b"rgb"}
    return _profile(b"RGB ", b"XYZ ", name, tags)


def grey_profile(curve=CURVE) -> bytes:
    """A profile of grey by its curve."""
    return _profile(b"GRAY", b"XYZ ", "grey", {b"wtpt": _xyz(D50), b"kTRC": _curve(curve)})


def cmyk_profile() -> bytes:
    """A profile of CMYK by L, a, b of the 16 full mixtures: its cyan is printed as green."""
    lightness, green = {0: 100, 1: 0}, (60, -60, 40)
    labs = []
    for inks in np.ndindex(2, 2, 2, 2):
        cyan, _, _, black = inks
        labs.append((0, 0, 0) if black else green if cyan else (lightness[max(inks)], 0, 0))
    cells = b"".join(bytes([round(light * 2.55), a + 128, b + 128]) for light, a, b in labs)
    matrix = struct.pack(">9i", *(65536 if number % 4 == 0 else 0 for number in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + bytes(range(256)) * 4 + cells + bytes(range(256)) * 3
    tags = {b"wtpt": _xyz(D50), b"A2B0": table, b"A2B1": table}
    return _profile(b"CMYK", b"Lab ", "inks", tags, kind=b"prtr")


def to_srgb(rgb, primaries=SRGB, curve=CURVE) -> np.ndarray:
    """sRGB levels 0..255 of stored levels [..., 3]: XYZ = M f(v / 255), then the inverse for sRGB."""
    stored = np.asarray(rgb) / 255
    linear = stored**curve if curve != CURVE else np.where(stored <= 0.04045, stored / 12.92, _power(stored))
    out = (linear @ np.array(primaries) @ np.linalg.inv(np.array(SRGB))).clip(0, 1)
    return 255 * np.where(out <= 0.0031308, 12.92 * out, 1.055 * out ** (1 / 2.4) - 0.055)


def _power(stored: np.ndarray) -> np.ndarray:
    return ((stored + 0.055) / 1.055) ** 2.4


def _xyz(values) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))


def _curve(curve) -> bytes:
    if curve != CURVE:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * curve))
    stored = np.arange(1024) / 1023
    values = np.where(stored <= 0.04045, stored / 12.92, _power(stored))
    return b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *(65535 * values).round().astype(int).tolist())


def _profile(space: bytes, connection: bytes, name: str, tags, kind: bytes = b"mntr") -> bytes:
    text = name.encode() + b"\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {b"desc": described, b"cprt": b"text\0\0\0\0none\0", **tags}
    table, content = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, value in tags.items():
        table += struct.pack(">4sII", tag, start + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(content), b"test", 0x02400000, kind, space, connection)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + content
