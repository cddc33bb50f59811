"""How well a face mesh fits a face: the landmark model's own presence, and whether several looks at it agree.

Distances between the landmarks don't tell a bad face: the model draws a human one over anything. Its presence score
does, and steeply: on 100 street photos the fit is 0.91 on average, with 16 cells across the face 0.63, with 8 it is
0.01, where the face detector's own score goes from 0.86 to 0.85 and 0.82.

What it can't see: what makes a face odd but sharp, such as eyes of two colours, too many teeth, the wrong age or
person.
"""

from dataclasses import dataclass

import numpy as np

from fairhuman.evaluate.people.detections import PartDetection
from fairhuman.evaluate.people.looks import agreement

WIDTH = 1.5  # the model's region through the face in it, see `looks.face_region`
SPREAD = 0.05  # of the face's width


@dataclass(frozen=True, slots=True)
class FaceShape:
    """Fit of one face.

    Attributes:
        presence: mean over the looks, 0..1.
        agreement: similarity of the looks' landmarks, 0..1 (`looks.agreement`).

    """

    presence: float
    agreement: float

    @property
    def fit(self) -> float:
        """presence · agreement, in 0..1."""
        return self.presence * self.agreement


def face_shape(face: PartDetection) -> FaceShape:
    """Fit of a found face."""
    return FaceShape(float(np.mean(face.presence)), agreement(np.array(face.looks), face.size / WIDTH, SPREAD))
