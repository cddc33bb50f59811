"""Random people for synthetic pictures: body, skin, hair, clothes, face and pose, and the caption for them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]

# Reflectance in [0, 1] per channel.
SKINS: Mapping[str, Colour] = {
    "pale": (0.96, 0.80, 0.69),
    "fair": (0.90, 0.70, 0.56),
    "tan": (0.80, 0.58, 0.42),
    "brown": (0.62, 0.42, 0.28),
    "dark": (0.42, 0.27, 0.18),
    "deep": (0.30, 0.19, 0.13),
}
HAIRS: Mapping[str, Colour] = {
    "black": (0.08, 0.06, 0.05),
    "brown": (0.25, 0.15, 0.08),
    "blond": (0.75, 0.58, 0.30),
    "red": (0.50, 0.20, 0.08),
    "gray": (0.62, 0.62, 0.62),
    "white": (0.90, 0.90, 0.88),
}
CLOTHES: Mapping[str, Colour] = {
    "red": (0.76, 0.08, 0.10),
    "blue": (0.09, 0.24, 0.68),
    "green": (0.10, 0.46, 0.18),
    "yellow": (0.90, 0.76, 0.10),
    "white": (0.92, 0.92, 0.92),
    "black": (0.09, 0.09, 0.10),
    "gray": (0.46, 0.46, 0.48),
    "orange": (0.93, 0.44, 0.06),
    "purple": (0.44, 0.12, 0.54),
    "pink": (0.94, 0.50, 0.66),
    "teal": (0.06, 0.50, 0.54),
}
IRISES: tuple[Colour, ...] = ((0.25, 0.15, 0.07), (0.20, 0.35, 0.50), (0.25, 0.40, 0.20), (0.12, 0.07, 0.04))
LENGTHS = ("bald", "buzz cut", "short", "medium", "long")
TOPS: Mapping[str, float] = {"t-shirt": 45, "long-sleeved shirt": 40, "tank top": 15}  # relative frequencies
EXPRESSIONS: Mapping[str, float] = {"smiling": 8, "neutral": 7, "serious": 3, "open mouth": 2}
AGES: Mapping[str, tuple[float, float]] = {"young": (0.60, 0.70), "middle-aged": (0.74, 0.84), "old": (0.88, 1.0)}
# Relative frequency of poses; poses with clearly visible hands are more frequent.
POSES: Mapping[str, float] = {
    "waving": 3,
    "hands up": 3,
    "hands on hips": 2,
    "arms crossed": 2,
    "pointing": 2,
    "hand on chest": 2,
    "thumbs up": 2,
    "peace sign": 2,
    "fists": 1.5,
    "hands clasped": 1.5,
    "hand on chin": 1,
    "shrugging": 1.5,
    "saluting": 1,
}
FACIAL_ACTIONS = (
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "jawOpen",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthSmileLeft",
    "mouthSmileRight",
)


@dataclass(frozen=True, slots=True)
class Person:
    """An adult.

    Attributes:
        phenotype: anny's shape parameters, each in [0, 1]; age from 0.6, so that nobody is a minor.
        facial_actions: strength in [0, 1] by the name of the action; absent = 0.
        neckline, sleeve, puff: radius of the neck opening in metres; end of the sleeve (0 shoulder, 1
            elbow, 2 wrist); distance of the cloth from the skin in metres.
        stripes: second colour of a striped top.
    """

    gender: str
    age: str
    phenotype: Mapping[str, float]
    facial_actions: Mapping[str, float]
    expression: str
    skin: str
    hair: str
    hair_length: str
    hair_thickness: float
    hair_cut: float
    iris: Colour
    top: str
    top_colour: str
    stripes: str | None
    trousers_colour: str
    neckline: float
    v_neck: bool
    sleeve: float
    puff: float
    pose: str

    def describe(self) -> str:
        """Return the person's part of the caption."""
        hair = self.hair_length if self.hair_length in ("bald", "buzz cut") else f"{self.hair_length} {self.hair} hair"
        striped = f" and {self.stripes} striped" if self.stripes else ""
        parts = [
            f"photo of {'an' if self.age[0] in 'aeiou' else 'a'} {self.age} {self.gender}",
            hair,
            f"{self.skin} skin",
            f"{self.top_colour}{striped} {self.top}",
            self.pose,
        ]
        return ", ".join(parts if self.expression == "neutral" else [*parts, self.expression])


def random_person(generator: np.random.Generator) -> Person:
    """Draw a person; skin and hair are loosely correlated with the mixture of origins, as in reality."""
    man = bool(generator.integers(2))
    age = choose(generator, {"young": 5, "middle-aged": 3, "old": 2})
    origin = generator.dirichlet([0.5, 0.5, 0.5])
    main = int(origin.argmax())
    skins = ("brown", "dark", "deep") if main == 0 else ("pale", "fair", "tan")
    hairs = ("black", "black", "brown") if main < 2 else ("black", "brown", "blond", "red", "brown")
    aged = age == "old" and generator.random() < 0.75
    lengths = {"bald": 2.0, "buzz cut": 2.5, "short": 5.5} if man else {"short": 2.5, "medium": 3.5, "long": 4.0}
    top = choose(generator, TOPS)
    colour = choose(generator, dict.fromkeys(CLOTHES, 1))
    expression = choose(generator, EXPRESSIONS)
    other_colours = [name for name in CLOTHES if name != colour]
    return Person(
        gender="man" if man else "woman",
        age=age,
        phenotype=_phenotype(man, age, origin, generator),
        facial_actions=_facial_actions(expression, generator),
        expression=expression,
        skin=skins[generator.integers(3)],
        hair=("gray", "white")[generator.integers(2)] if aged else hairs[generator.integers(len(hairs))],
        hair_length=choose(generator, lengths),
        hair_thickness=generator.uniform(0.008, 0.026),
        hair_cut=generator.random(),
        iris=IRISES[generator.integers(len(IRISES))],
        top=top,
        top_colour=colour,
        stripes=other_colours[generator.integers(len(other_colours))] if generator.random() < 0.15 else None,
        trousers_colour=choose(generator, dict.fromkeys(CLOTHES, 1)),
        neckline={"t-shirt": 0.078, "long-sleeved shirt": 0.072, "tank top": 0.105}[top]
        * generator.uniform(0.92, 1.15),
        v_neck=bool(generator.random() < 0.25),
        sleeve={
            "t-shirt": generator.uniform(0.45, 0.75),
            "long-sleeved shirt": generator.uniform(1.82, 1.95),
            "tank top": 0.06,
        }[top],
        puff=generator.uniform(0.005, 0.012),
        pose=choose(generator, POSES),
    )


def _phenotype(man: bool, age: str, origin: NDArray[np.float64], generator: np.random.Generator) -> dict[str, float]:
    """Draw anny's shape parameters."""
    return {
        "gender": generator.uniform(0.08, 0.20) if man else generator.uniform(0.85, 0.97),
        "age": generator.uniform(*AGES[age]),
        "muscle": generator.uniform(0.3, 0.8),
        "weight": generator.uniform(0.25, 0.85),
        "height": generator.uniform(0.3, 0.7),
        "proportions": generator.uniform(0.4, 0.9),
        "cupsize": generator.uniform(0.3, 0.6),
        "firmness": 0.6,
        "african": float(origin[0]),
        "asian": float(origin[1]),
        "caucasian": float(origin[2]),
    }


def choose(generator: np.random.Generator, weights: Mapping[str, float]) -> str:
    """Draw a name with a probability proportional to its weight."""
    shares = np.array(list(weights.values()), dtype=float)
    return list(weights)[int(generator.choice(len(shares), p=shares / shares.sum()))]


def _facial_actions(expression: str, generator: np.random.Generator) -> dict[str, float]:
    blink = max(0.0, generator.normal(0.05, 0.08))
    actions = {"eyeBlinkLeft": blink, "eyeBlinkRight": blink}
    strength = generator.uniform(0.4, 1.0)
    if expression == "smiling":
        actions |= {"mouthSmileLeft": strength, "mouthSmileRight": strength, "jawOpen": generator.uniform(0, 0.25)}
    elif expression == "serious":
        actions |= dict.fromkeys(("browDownLeft", "browDownRight"), 0.8 * strength)
        actions |= dict.fromkeys(("mouthFrownLeft", "mouthFrownRight"), 0.5 * strength)
    elif expression == "open mouth":
        actions |= {"jawOpen": generator.uniform(0.3, 0.7), "browInnerUp": generator.uniform(0, 0.8)}
    return actions
