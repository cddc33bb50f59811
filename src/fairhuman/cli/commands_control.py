"""What `fairhuman sample` does about ControlNets, T2I-adapters and conditions."""

from collections.abc import Sequence
from dataclasses import dataclass

from diffusers import StableDiffusionXLPipeline
from rich.console import Console

from fairhuman.errors import RecipeError
from fairhuman.generate.control_inputs import ControlInputs, read_control_inputs
from fairhuman.generate.guide import ActiveControl, ControlSpec, check_conditions_match, step_in_range
from fairhuman.generate.sample import picture_size
from fairhuman.generate.settings import SampleSettings
from fairhuman.models.registry import CONTROLS


@dataclass(frozen=True)
class Steering:
    """The options of control, as they were typed."""

    controlnets: Sequence[str] = ()
    adapters: Sequence[str] = ()
    conditions: Sequence[str] = ()
    start: float = 0.0
    end: float = 1.0

    def named(self) -> list[tuple[str, ControlSpec]]:
        """Return kinds and places of the networks; errors as of `ControlSpec.parse`."""
        given = (("controlnet", self.controlnets), ("t2i_adapter", self.adapters))
        return [(kind, ControlSpec.parse(text)) for kind, texts in given for text in texts]

    def read(self, count: int, steps: int) -> ControlInputs:
        """Check what can be checked without the model, and read the conditions of `count` prompts, drawn in `steps`.

        Raises:
            RecipeError: conditions or a window without a network, a window without a step, or a wrong option.
            ModelError: no such folder.
            DataError: conditions that can't be used; see `read_control_inputs`.

        """
        if not self.controlnets and not self.adapters:
            follower = "give --controlnet FOLDER or --t2i-adapter FOLDER, which follows it"
            if self.conditions:
                raise RecipeError(f"--control: {follower}")
            if (self.start, self.end) != (0.0, 1.0):
                raise RecipeError(
                    f"--control-start and --control-end: {follower}; found {self.start}, {self.end} and neither"
                )
        if not 0.0 <= self.start < self.end <= 1.0:
            raise RecipeError(
                f"--control-start and --control-end: expected 0 <= start < end <= 1, found {self.start}, {self.end}"
            )
        if not any(step_in_range(step, steps, self.start, self.end) for step in range(steps)):
            raise RecipeError(
                f"--control-start and --control-end: expected a whole step between them, found {self.start}, "
                f"{self.end} and --steps {steps}"
            )
        for kind, named in self.named():
            named.check(CONTROLS[kind])
        return read_control_inputs(self.conditions, count)

    def open(
        self, pipeline: StableDiffusionXLPipeline, asked: ControlInputs, settings: SampleSettings, console: Console
    ) -> list[ActiveControl]:
        """Load the networks beside the pipeline, check that they and the conditions fit, say what is missing.

        Raises:
            ModelError: a checkpoint for another model.
            RecipeError: a condition that nothing follows, or one that isn't given.
            DataError: a condition of another aspect ratio.

        """
        guides = [named.open(CONTROLS[kind], pipeline, self.start, self.end) for kind, named in self.named()]
        check_conditions_match(guides, list(asked.records))
        asked.check(picture_size(pipeline, settings))
        for name, count in asked.missing().items():
            console.print(
                f"{name}: {count} of {len(asked.records[name])} prompts have none and get the null condition",
                highlight=False,
            )
        return guides
