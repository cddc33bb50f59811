"""Settings that don't go together: an example for each rule, put through the classes that enforce the rules.

The page prints the message that the class really gives, so it can't fall behind the code. A test holds that every
`raise` in a validator of a settings class is reached by one of these examples.
"""

from dataclasses import dataclass
from importlib import import_module

from pydantic import BaseModel

from fairhuman import config
from fairhuman.errors import RecipeError

RUN = ("data=people", "out=runs/a", "steps=100")
MIX = "data=[{path: a, %s}, {path: b%s}]"
CELLS = ("out=runs/c", "train={data: people}", "test=others", "cells={LS: {strategy: ls}, MPD: {strategy: mpd}}")
FRONT = "front={rival: LS, untuned: {cell: MPD, learning_rate: 1.0e-3}}"
TUNING = "tuning={data: more, learning_rates: [1.0e-3]}"


@dataclass(frozen=True)
class Command:
    """A command whose settings are checked.

    Attributes:
        title: of its part of the page.
        place: `module:class` of its settings.
        base: what makes a valid recipe, not printed.
        examples: the overrides of each example; each breaks one rule.
    """

    title: str
    place: str
    base: tuple[str, ...]
    examples: tuple[tuple[str, ...], ...]

    def kind(self) -> type[BaseModel]:
        """The class of settings."""
        module, _, name = self.place.partition(":")
        kind: type[BaseModel] = getattr(import_module(f"fairhuman.{module}"), name)
        return kind

    def refusal(self, example: tuple[str, ...]) -> RecipeError:
        """The error that an example gives.

        Raises:
            AssertionError: the example is accepted: the rule is gone, and the example has to go with it.
        """
        try:
            config.build(self.kind(), {}, [*self.base, *example], origin="recipe")
        except RecipeError as error:
            return error
        raise AssertionError(f"{self.place} accepts {' '.join(example)}")


COMMANDS = (
    Command(
        "`fairhuman train`",
        "train.recipe:TrainRecipe",
        RUN,
        (
            ("resolution=8",),
            ("strategy=pmd",),
            ("strategy=mpd", "fairness.options={temperature: 1}"),
            ("steer.at_most=0.001", "validation.every=0"),
            ("strategy=torchjd:PCGrad",),
            ("objectives.bands=4", "batch_size=16", "fairness.mode=exact"),
            ("objectives.bands=3", "batch_size=4", "fairness.mode=exact"),
            ("objectives.bands=3", "batch_size=16"),
            ("cache.latents=true",),
            ("cache.latents=true", "view.crop=center", "view.close_up={hand: 0.2}"),
            ("cache.latents=true", "view.crop=center", "cache.variants=3"),
            ("view.close_up={face: 0.5, hand: 0.5}",),
            ("view.close_up_size=[0.2, 0.4]",),
            ("view.close_up={hand: 0.2}", "view.close_up_size=[0.6, 0.3]"),
            ("view.zoom=[2, 1]",),
            ("cache.text=true", "kind=full", "full.text_encoders=true"),
            ("base.quantize=int8", "kind=full"),
            ("base.offload=true", "kind=full"),
            ("base.offload=true", "compile=true"),
            ("data=[]",),
            (MIX % ("repeats: 2, weight: 1", ""),),
            (MIX % ("weight: 1", ""),),
            (MIX % ("regions: [feet]", ""),),
            (MIX % ("regions: [face]", ", regions: [face]"),),
            ("view.bucket_step=64", "resolution=1000"),
            ("base.zero_snr=true", "base.prediction=epsilon"),
            ("fairness.pairwise=true", "accumulate=4"),
            ("fairness.gradients=bf16", "accumulate=4"),
            ("fairness.mode=split", "compile=true"),
            ("processes.sharding=fsdp",),
            ("processes.sharding=fsdp", "kind=full", "fairness.mode=tail"),
            ("processes.sharding=fsdp", "kind=full", "precision=fp16"),
            ("processes.sharding=fsdp", "kind=full", "optimizer.name=adamw8bit"),
            ("processes.sharding=fsdp", "kind=full", "ema.decay=0.999"),
            ("controlnet.conditions=[depth]",),
            ("kind=controlnet", "controlnet.conditions=[pose, pose]"),
            ("kind=mole", "mole.stage=gates"),
            ("kind=mole", "mole.start_face=face.safetensors"),
            ("regions.names=[face, face]",),
            ("regions.names=[face, ignore]",),
            ("regions.ignore=face",),
            ("regions.prior=true", "regions.names=[]"),
            ("regions.prior=true", "regions.names=[face, prior]"),
            ("regions.prior=true", "kind=full"),
            ("regions.prior=true", "strategy=si"),
            ("regions.scale={face: 0}",),
            ("regions.scale={feet: 2}",),
            ("fairness.weights=[1, 2, 3]",),
            ("strategy=ls", "fairness.weights={feet: 2}"),
            ("noise.density={feet: [1, 2]}",),
            ("strategy=ls", "fairness.weights={global: 0, face: 0, hand: 0}"),
            ("validation.timesteps=[1.0]",),
            ("optimizer.betas=[0.9, 1.5]",),
            ("schedule.name=polynomial", "learning_rate=1e-8"),
        ),
    ),
    Command(
        "`fairhuman data build`",
        "data.pipeline.settings:BuildRecipe",
        (),
        (
            ("regions=[face, hand]",),
            ("min_aspect=2", "max_aspect=1"),
            ("min_clarity=100", "min_clarity_percentile=5"),
            ("detect={face: null, hand: null, person: null}",),
            ("detect.regions=[shoes]",),
            ("detect.regions={face: the face}",),
            ("detect.regions={shoes: ''}",),
            ("detect.regions={depth: how deep}",),
            ("detect.regions={shoes: the shoes, shoes_by: a label}",),
            ("detect.face=onnx",),
            ("detect.person=whole-body",),
            ("caption.kind=endpoint",),
            ("caption.endpoint.base_url=localhost",),
            ("caption.endpoint.base_url=https://me:secret@example.org/v1",),
            ("caption.template.phrases={hat: ''}",),
            ("condition.pose=whole-body",),
        ),
    ),
    Command(
        "`fairhuman data validation`",
        "data.validation.settings:ValidationSetSettings",
        (),
        (("strata=[age, age]",), ("prompts.kind=endpoint",), ("detect.regions=[eyes]",)),
    ),
    Command("`fairhuman losses`", "evaluate.settings:LossSettings", (), (("regions.prior=true",),)),
    Command(
        "`fairhuman compare`",
        "compare.settings:CompareRecipe",
        CELLS,
        (
            ("cells={MPD/2: {}}",),
            ("cells={base: {}}",),
            ("cells={LS: {}, ls: {}}",),
            ("against=SI",),
            ("against={LS: [LS]}",),
            ("cells={LS: {strategy: ls}, MPD: {fairness: {length: clip}}}", "against=LS"),
            ("cells={all: {}, faces: {regions: {names: [face]}}}",),
            ("grid={data: others, zoom_on: SI}",),
            ("seeds=[1, 1]",),
            ("tuning={data: others, learning_rates: [1.0e-3]}",),
            ("tuning={data: more, learning_rates: [1.0e-3], same: {LS: [SI]}}",),
            ("tuning={data: more, learning_rates: [1.0e-3], same: {LS: [MPD], MPD: [LS]}}",),
            (FRONT,),
            (FRONT, TUNING, "against=LS"),
            (FRONT, TUNING, "seeds=[0, 1]"),
            (FRONT, TUNING, "front.families={fixed: [SI]}"),
            (FRONT, TUNING, "front.families={a: [LS], b: [LS]}"),
            (FRONT, TUNING, "front.rival=SI"),
            (FRONT, TUNING, "front.untuned.learning_rate=1"),
            (FRONT, TUNING, "cells={LS: {strategy: ls}, MPD: {fairness: {length: clip}}}"),
            (FRONT, TUNING, "front.untuned.cell=SI"),
            (FRONT, TUNING, "front.predictions=[{verdict: same}, {verdict: better}]"),
            (FRONT, TUNING, "front.predictions=[{family: MPD, loss: face, verdict: same}]"),
            (FRONT, TUNING, "front.predictions=[{budget: equal compute, verdict: same}]"),
            (FRONT, TUNING, "front.predictions=[{loss: global, verdict: same}]"),
            (FRONT, TUNING, "front.predictions=[{family: MPD, verdict: moved along the front}]"),
            (FRONT, TUNING, "people={train: {count: 8, seed: 1}, others: {count: 8, seed: 1}}"),
        ),
    ),
    Command(
        "`fairhuman reproduce`",
        "compare.paper.recipe:ReproduceRecipe",
        (*CELLS, "sampling={data: others}"),
        (("grid={data: others}",), (FRONT, TUNING), ("tables={Table 2: [SI]}",), ("sampling.lora_weights=[1, 1]",)),
    ),
    Command(
        "`fairhuman refine`",
        "refine.settings:RefineSettings",
        (),
        (("parts=[face, face]",), ("steps=10", "strength=0.05"), ("detect.regions=[feet]",)),
    ),
    Command(
        "`fairhuman study create`",
        "study.study:StudySettings",
        (),
        (
            ("questions=[{name: overall, text: 'Which?'}, {name: overall, text: 'Which one?'}]",),
            ("items=50", "per_participant=60"),
        ),
    ),
    Command(
        "`fairhuman study power`",
        "study.power:PowerSettings",
        ("difference=0.1",),
        (("difference=0.5", "ties=0.6"), ("items=50", "per_participant=60")),
    ),
    Command("`fairhuman demo`", "demo.settings:DemoSettings", (), (("samples=32", "held_out=8"),)),
)


def conflicts_page() -> str:
    """Markdown of all examples: what was asked for, and the message."""
    lines: list[str] = []
    for command in COMMANDS:
        lines += ["", f"## {command.title}"]
        for example in command.examples:
            shown = " ".join(f'"{one}"' if set(" [{") & set(one) else one for one in example)
            message = str(command.refusal(example)).removeprefix("recipe: ")
            lines += ["", "```text", shown, "```", "", *(f"> {line}" for line in message.splitlines())]
    return "\n".join(lines)
