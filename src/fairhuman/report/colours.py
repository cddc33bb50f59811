"""One colour for each region, objective or method, in every figure, overlay and page.

Colours have a contrast of at least 3 : 1 to white and to near-black, as WCAG 2.2 (1.4.11) asks of graphics, so they
serve light and dark pages. `global`, `face` and `hand` are of a palette that is safe for colour-blind readers (Okabe,
Ito, Color Universal Design, 2008); the others are chosen to be far from each other in CIELAB.
"""

import hashlib
from collections.abc import Iterable

REGION_COLOURS = {
    "global": "#0072B2",
    "face": "#D55E00",
    "hand": "#009E73",
    "person": "#AA4499",
    "subject": "#A87B00",
    "ignore": "#7F7F7F",
}
OTHER_COLOURS = ("#554FFE", "#63A402", "#F2446C", "#6B7939", "#167AFA", "#D443E2", "#CD735A", "#9D81BB")


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour `#RRGGBB` for each name, in the given order.

    Regions of `REGION_COLOURS` have fixed colours. Another name has one of eight by its hash, so it keeps its colour
    from page to page, unless another of these names has the same; then the later one in the alphabet takes the next
    that is free.
    """
    names = list(dict.fromkeys(names))
    chosen = {name: REGION_COLOURS[name] for name in names if name in REGION_COLOURS}
    free = list(OTHER_COLOURS)
    for name in sorted(name for name in names if name not in REGION_COLOURS):
        own = OTHER_COLOURS[hashlib.blake2b(name.encode("utf-8", "replace")).digest()[0] % len(OTHER_COLOURS)]
        if own not in free and free:
            at = OTHER_COLOURS.index(own)
            own = next(colour for colour in OTHER_COLOURS[at:] + OTHER_COLOURS[:at] if colour in free)
        chosen[name] = own
        free = [colour for colour in free if colour != own]
    return {name: chosen[name] for name in names}
