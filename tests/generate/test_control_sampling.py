"""Sampling with ControlNets and T2I-adapters: equal to diffusers' pipelines, null conditions, errors."""

import base64
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
    UniPCMultistepScheduler,
)
from PIL import Image
from torch import Tensor

from fairhuman.bases.latents import decode_latents
from fairhuman.data.condition.depth import decode_depth
from fairhuman.data.condition.people import people_from_list
from fairhuman.errors import DataError, ModelError, RecipeError
from fairhuman.generate.control_inputs import read_control_inputs
from fairhuman.generate.control_options import ControlOptions
from fairhuman.generate.control_spec import ControlSpec, step_in_range
from fairhuman.generate.guide import ActiveControl, check_conditions_match
from fairhuman.generate.preview import PreviewRow, PreviewSet
from fairhuman.generate.run import SampleJob
from fairhuman.generate.sample import draw, picture_generator, sample
from fairhuman.generate.settings import SampleSettings
from fairhuman.models.architecture import build_small
from fairhuman.models.control import Control, ControlModel
from fairhuman.models.controlnet import ControlNet
from fairhuman.models.t2i_adapter import Adapter

PROMPTS = ["a person in a red shirt", "a hat", "two hands"]
SMALL = SampleSettings(steps=3, height=32, width=48, batch_size=1, guidance=3.0, seed=5)
Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionXLPipeline:
    return build_small(0)


def control(kind: type[Control], pipeline: StableDiffusionXLPipeline, *names: str) -> Control:
    """One that isn't zero."""
    made = kind.new(pipeline, names, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    made.network.eval()
    return made


def drawn(pipeline: StableDiffusionXLPipeline, guides: list[ActiveControl], **conditions: Tensor) -> Tensor:
    generators = [picture_generator(5, number, 0) for number in range(2)]
    return draw(pipeline, PROMPTS[:2], generators, SMALL, guides=guides, conditions=conditions)


def pose(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(7))


def asked_of_diffusers() -> dict[str, Any]:
    """The result of `drawn` by diffusers' own pipelines."""
    return {
        "prompt": PROMPTS[:2],
        "image": pose(),
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "height": 32,
        "width": 48,
        "generator": [picture_generator(5, number, 0) for number in range(2)],
    }


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.3, 1.0), (0.0, 0.7)])
def test_a_controlnet_draws_what_diffusers_pipeline_draws(
    pipeline: StableDiffusionXLPipeline, start: float, end: float
) -> None:
    made = control(ControlNet, pipeline, "pose")
    theirs = StableDiffusionXLControlNetPipeline(
        **{**pipeline.components, "scheduler": UniPCMultistepScheduler.from_config(pipeline.scheduler.config)},
        controlnet=made.network,
        add_watermarker=False,
    )
    theirs.set_progress_bar_config(disable=True)
    latents = theirs(
        **asked_of_diffusers(),
        controlnet_conditioning_scale=0.8,
        control_guidance_start=start,
        control_guidance_end=end,
        output_type="latent",
    ).images
    found = drawn(pipeline, [ActiveControl(made, 0.8, start, end)], pose=pose())
    torch.testing.assert_close(found, decode_latents(pipeline.vae, latents), rtol=0, atol=1e-4)
    assert (found - drawn(pipeline, [])).abs().max() > 0.01


def test_an_adapter_draws_what_diffusers_pipeline_draws(pipeline: StableDiffusionXLPipeline) -> None:
    made = control(Adapter, pipeline, "pose")
    theirs = StableDiffusionXLAdapterPipeline(
        **{**pipeline.components, "scheduler": UniPCMultistepScheduler.from_config(pipeline.scheduler.config)},
        adapter=made.network,
    )
    theirs.set_progress_bar_config(disable=True)
    latents = theirs(**asked_of_diffusers(), adapter_conditioning_scale=0.8, output_type="latent").images
    found = drawn(pipeline, [ActiveControl(made, 0.8)], pose=pose())
    torch.testing.assert_close(found, decode_latents(pipeline.vae, latents), rtol=0, atol=1e-4)
    assert (found - drawn(pipeline, [])).abs().max() > 0.01


@pytest.mark.parametrize("kind", [ControlNet, Adapter])
def test_pictures_are_read_once_for_all_steps_and_change_no_bit(
    pipeline: StableDiffusionXLPipeline, kind: type[Control], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, calls = control(kind, pipeline, "pose"), []
    guides = [ActiveControl(made, 0.8)]
    made.network.register_forward_pre_hook(lambda *_: calls.append("network"))
    read, residuals = made.read, made.residuals
    monkeypatch.setattr(made, "read", lambda *given: calls.append("read") or read(*given))
    found = drawn(pipeline, guides, pose=pose())
    assert (calls.count("read"), calls.count("network")) == (1, 1 if kind is Adapter else 3)

    def each(latents: Tensor, timesteps: Tensor, given: Any, picture: Tensor, strength: float) -> dict[str, Any]:
        return residuals(latents, timesteps, given, read(picture, latents.device), strength)

    monkeypatch.setattr(made, "read", lambda picture, _: picture)
    monkeypatch.setattr(made, "residuals", each)
    assert torch.equal(drawn(pipeline, guides, pose=pose()), found)


def test_pose_and_depth_can_come_from_two_networks_at_once(pipeline: StableDiffusionXLPipeline) -> None:
    depth = pose()[:, :1]
    guides = [
        ActiveControl(control(ControlNet, pipeline, "pose")),
        ActiveControl(control(ControlNet, pipeline, "depth"), 0.5),
    ]
    both = drawn(pipeline, guides, pose=pose(), depth=depth)
    theirs = StableDiffusionXLControlNetPipeline(
        **{**pipeline.components, "scheduler": UniPCMultistepScheduler.from_config(pipeline.scheduler.config)},
        controlnet=[guide.control.network for guide in guides],
        add_watermarker=False,
    )
    theirs.set_progress_bar_config(disable=True)
    latents = theirs(
        PROMPTS[:2],
        image=[pose(), depth],
        num_inference_steps=3,
        guidance_scale=3.0,
        height=32,
        width=48,
        generator=[picture_generator(5, number, 0) for number in range(2)],
        controlnet_conditioning_scale=[1.0, 0.5],
        output_type="latent",
    ).images
    torch.testing.assert_close(both, decode_latents(pipeline.vae, latents), rtol=0, atol=1e-4)
    adapter = ActiveControl(control(Adapter, pipeline, "depth"))
    mixed = drawn(pipeline, [guides[0], adapter], pose=pose(), depth=depth)
    assert (mixed - drawn(pipeline, guides[:1], pose=pose())).abs().max() > 1e-3
    twice = drawn(pipeline, [adapter, adapter], depth=depth)
    torch.testing.assert_close(
        twice, drawn(pipeline, [ActiveControl(adapter.control, 2.0)], depth=depth), rtol=0, atol=1e-4
    )


def test_the_null_condition_is_zeros_and_networks_leave_nothing_behind(pipeline: StableDiffusionXLPipeline) -> None:
    plain = drawn(pipeline, [])
    guides = [ActiveControl(control(ControlNet, pipeline, "pose", "depth"))]
    null = drawn(pipeline, guides)
    zeros = {"pose": torch.zeros(2, 3, 32, 48), "depth": torch.zeros(2, 1, 32, 48)}
    assert torch.equal(null, drawn(pipeline, guides, **zeros))
    assert not torch.equal(null, drawn(pipeline, guides, pose=pose()))
    with pytest.raises(RuntimeError):
        drawn(pipeline, guides, pose=torch.rand(2, 3, 7, 7))
    assert torch.equal(drawn(pipeline, []), plain)


def test_a_controlled_image_does_not_depend_on_the_others(pipeline: StableDiffusionXLPipeline, tmp_path: Path) -> None:
    for number in range(3):
        write_pose(tmp_path / f"{number}.json", x=10 + 10 * number)
    guides = [ActiveControl(control(ControlNet, pipeline, "pose"))]
    asked = read_control_inputs([f"pose={tmp_path}"], 3)
    found = list(sample(pipeline, PROMPTS, SMALL, guides=guides, asked=asked))
    [last] = sample(pipeline, PROMPTS[2:], SMALL, indices=[2], guides=guides, asked=asked)
    assert last.image.tobytes() == found[2].image.tobytes()
    batched = list(sample(pipeline, PROMPTS, SMALL.model_copy(update={"batch_size": 3}), guides=guides, asked=asked))
    for one, other in zip(found, batched, strict=True):
        assert np.abs(np.asarray(one.image).astype(int) - np.asarray(other.image)).max() <= 1


def test_previews_follow_their_rows_conditions(pipeline: StableDiffusionXLPipeline, tmp_path: Path) -> None:
    guides = [ActiveControl(ControlModel(pipeline, control(ControlNet, pipeline, "pose")).control)]
    photo = torch.zeros(3, 32, 48)
    pictures = []
    for number, condition in enumerate((pose(1)[0], torch.zeros(3, 32, 48))):
        row = PreviewRow("a hat", 3, photo, {}, {"pose": condition})
        PreviewSet([row], steps=2, guides=guides).render(pipeline, 0, tmp_path / str(number))
        folder = tmp_path / str(number) / "previews" / "step-000000"
        pictures.append([(folder / f"row-00-{way}.png").read_bytes() for way in ("caption", "photo")])
    assert pictures[0][0] != pictures[1][0]
    assert pictures[0][1] != pictures[1][1]


def write_pose(path: Path, x: float = 24.0, width: int = 48, height: int = 32) -> None:
    points = [[x, 4.0 + point, 1.0] for point in range(17)]
    path.write_text(json.dumps({"width": width, "height": height, "people": [points]}))


def write_depth(path: Path, width: int = 48, height: int = 32) -> None:
    ramp = np.linspace(0, 65535, width * height).reshape(height, width).astype(np.uint16)
    Image.fromarray(ramp).save(path)


def test_an_images_metadata_has_its_conditions(pipeline: StableDiffusionXLPipeline, tmp_path: Path) -> None:
    write_pose(tmp_path / "pose.json", x=48.0, width=96, height=64)
    write_depth(tmp_path / "depth.png", 96, 64)
    asked = read_control_inputs([f"pose={tmp_path / 'pose.json'}", f"depth={tmp_path / 'depth.png'}"], 1)
    guides = [ActiveControl(control(ControlNet, pipeline, "pose", "depth"), 0.7, 0.1, 0.9, "runs/x")]
    [picture] = sample(pipeline, PROMPTS[:1], SMALL, guides=guides, asked=asked)
    [person] = people_from_list(json.loads(picture.metadata["asked_pose"]))
    assert person.body[0].tolist() == pytest.approx([24.0, 2.0, 1.0]), "in pixels of the drawn picture"
    depth = decode_depth(base64.b64decode(picture.metadata["asked_depth"]))
    assert depth.shape == (32, 48)
    assert (np.diff(depth.astype(int).mean(axis=1)) > 0).all()
    [said] = json.loads(picture.metadata["control"])
    assert said == {
        "kind": "ControlNet",
        "place": "runs/x",
        "conditions": ["pose", "depth"],
        "strength": 0.7,
        "start": 0.1,
        "end": 0.9,
    }
    [plain] = sample(pipeline, PROMPTS[:1], SMALL)
    assert not {"control", "asked_pose", "asked_depth"} & plain.metadata.keys()


def test_conditions_are_read_as_in_training(tmp_path: Path) -> None:
    drawing = Image.fromarray((255 * np.random.default_rng(0).random((32, 48, 3))).astype(np.uint8))
    drawing.save(tmp_path / "pose.png")
    write_depth(tmp_path / "depth.png")
    asked = read_control_inputs([f"depth={tmp_path / 'depth.png'}", f"pose={tmp_path / 'pose.png'}"], 2)
    views = asked.views([1, 0], (32, 48))
    expected = torch.from_numpy(np.array(drawing)).permute(2, 0, 1) / 255
    torch.testing.assert_close(views["pose"], expected.expand(2, -1, -1, -1))
    assert views["depth"].shape == (2, 1, 32, 48)
    assert float(views["depth"][0, 0, -1, -1]) == pytest.approx(1.0)
    assert asked.texts(0, (32, 48)).keys() == {"asked_depth"}, "of a drawing nobody knows the key points"


def test_files_of_a_folder_are_in_natural_order(tmp_path: Path) -> None:
    for number in (2, 10):
        Image.new("RGB", (48, 32), (number, 0, 0)).save(tmp_path / f"{number}.png")
    asked = read_control_inputs([f"pose={tmp_path}"], 2)
    assert [round(255 * float(view.max())) for view in asked.views([0, 1], (32, 48))["pose"]] == [2, 10]


def test_null_and_missing_conditions_are_distinguished_from_errors(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(3):
        Image.new("RGB", (48, 32), (number, 0, 0)).save(folder / "images" / f"{number}.png")
        points = [[10.0, 10.0, 1.0]] * 17
        rows.append({"file_name": f"images/{number}.png", "caption": "a", "pose": None if number == 1 else points})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "report.json").write_text("{}")  # as builds and rendered people have them
    asked = read_control_inputs([f"pose={folder}", "depth=none"], 3)
    assert asked.missing() == {"pose": 1}
    views = asked.views([0, 1, 2], (32, 48))
    assert [bool(view.any()) for view in views["pose"]] == [True, False, True]
    assert not views["depth"].any()
    with pytest.raises(DataError, match="no record of this data set has a depth"):
        read_control_inputs([f"depth={folder}"], 3)


def place(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_unusable_conditions_are_named_and_refused(tmp_path: Path) -> None:
    colour, deep, poses = tmp_path / "colour.png", place(tmp_path, "deep"), place(tmp_path, "poses")
    Image.new("RGB", (48, 32)).save(colour)
    for number in range(2):
        write_depth(deep / f"{number}.png")
        write_pose(poses / f"{'ab'[number]}.json")
    Image.new("L", (48, 32), 9).save(tmp_path / "grey.png")
    (tmp_path / "bad.json").write_text('{"width": 3}')
    (tmp_path / "endless.json").write_text('{"width": 1e400, "height": 3, "people": []}')
    mistakes: list[tuple[list[str], int, str]] = [
        ([f"depth={colour}"], 1, "depth must be grey with 16 bits.*mode RGB"),
        ([f"depth={poses / 'a.json'}"], 1, "expected a picture, found JSON"),
        ([f"pose={poses}"], 3, "holds 2 conditions for 3 prompts"),
        ([f"pose={poses}", f"depth={deep}"], 2, "must have one name, found a and 0"),
        ([f"pose={tmp_path / 'none'}"], 1, "there is no such file"),
        ([f"pose={tmp_path / 'bad.json'}"], 1, r"expected JSON .*KeyError"),
        ([f"pose={tmp_path / 'endless.json'}"], 1, r"expected JSON .*OverflowError"),
        ([f"pose={place(tmp_path, 'empty')}"], 1, "expected a picture, a .json, a folder of these or a data set"),
        ([f"depth={tmp_path / 'grey.png'}"], 1, "depth must be grey with 16 bits.*mode L; if that is depth.* 257"),
    ]
    for given, count, message in mistakes:
        with pytest.raises(DataError, match=message):
            read_control_inputs(given, count)
    for wrong in (["edges=a"], ["pose"], ["pose="], [f"pose={poses}", "pose=none"]):
        with pytest.raises(RecipeError, match="--control"):
            read_control_inputs(wrong, 2)
    with pytest.raises(DataError, match=r"is 48x32, the picture 32x32: they must have one aspect ratio"):
        read_control_inputs([f"pose={poses}"], 2).check((32, 32))
    read_control_inputs([f"pose={poses}"], 2).check((64, 96))


def test_given_and_followed_conditions_must_match(pipeline: StableDiffusionXLPipeline) -> None:
    guide = ActiveControl(ControlNet.new(pipeline, ("pose",), 0), place="runs/x")
    with pytest.raises(RecipeError, match=r"ControlNet 'runs/x' follows pose: give --control pose=PLACE, or pose=none"):
        check_conditions_match([guide], [])
    with pytest.raises(RecipeError, match="depth: no ControlNet or T2I-adapter follows it"):
        check_conditions_match([guide], ["pose", "depth"])
    wrong: list[dict[str, Any]] = [{"start": 0.5, "end": 0.5}, {"end": 1.5}, {"strength": float("nan")}]
    for values in wrong:
        with pytest.raises(RecipeError, match="control"):
            ActiveControl(guide.control, **values)


def test_control_specs_are_parsed(tmp_path: Path) -> None:
    folder = place(tmp_path, "a@b")
    assert ControlSpec.parse(str(folder)) == ControlSpec(str(folder), None, 1.0)
    assert ControlSpec.parse(f"{folder}@0.5") == ControlSpec(str(folder), None, 0.5)
    assert ControlSpec.parse(f"pose+depth={folder}@2") == ControlSpec(str(folder), ("pose", "depth"), 2.0)
    assert ControlSpec.parse("depth=owner/name") == ControlSpec("owner/name", ("depth",), 1.0)
    with pytest.raises(ModelError, match="expected a folder or a hub id"):
        ControlSpec.parse(str(tmp_path / "none"))
    rule = r"expected \[CONDITIONS=\]FOLDER\[@STRENGTH\].* pose or depth, .* finite number"
    for text in (
        "pose=",
        f"edges={folder}",
        f"pose+edges={folder}",
        f"{folder}@nan",
        f"{folder}@1e999",
        "owner/name@x",
    ):
        with pytest.raises(RecipeError, match=rule):
            ControlSpec.parse(text)


@pytest.mark.parametrize(("start", "end", "steps"), [(0.9, 0.92, 30), (0.9, 1.0, 2), (0.0, 0.3, 3)])
def test_a_window_without_a_step_is_refused(tmp_path: Path, start: float, end: float, steps: int) -> None:
    window = ControlOptions(("owner/name",), start=start, end=end)
    with pytest.raises(RecipeError, match=rf"a whole step between them, found {start}, {end} and --steps {steps}"):
        window.read(1, steps)
    assert not any(step_in_range(step, steps, start, end) for step in range(steps))


def test_a_window_without_a_network_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"--control-start and --control-end: give --controlnet.*found 0.0, 0.5"):
        ControlOptions(end=0.5).read(1, 30)
    ControlOptions().read(1, 30)


def test_sides_that_an_adapter_cannot_halve_are_refused(tmp_path: Path) -> None:
    small = build_small(0)
    ControlModel(small, control(Adapter, small, "pose")).save(tmp_path)
    controls = ControlOptions(adapters=(str(tmp_path),))
    for height, fits in ((1008, True), (1000, False)):
        settings = SampleSettings(height=height)
        job = SampleJob(tmp_path / "out", ["a hat"], settings, "owner/name", control=controls)
        with nullcontext() if fits else pytest.raises(RecipeError, match="multiples of 16 for a T2I-adapter, found"):
            job.check()


def test_the_command_draws_with_control(typed: Typed, tmp_path: Path) -> None:
    small = build_small(0)
    ControlModel(small, control(ControlNet, small, "pose")).save(tmp_path / "net")
    write_pose(tmp_path / "pose.json", width=32)
    options = ("--prompt", "a hat", "--height", 32, "--width", 32, "--steps", 2, "--model", "small-untrained")
    net = ("--controlnet", f"{tmp_path / 'net'}@0.9", "--control", f"pose={tmp_path / 'pose.json'}")
    code, _, error = typed("sample", tmp_path / "out", *options, *net, "--control-end", 0.8)
    assert code == 0, error
    with Image.open(tmp_path / "out" / "00000-00.png") as picture:
        assert json.loads(picture.info["control"])[0]["end"] == 0.8
        assert "asked_pose" in picture.info
    assert typed("sample", tmp_path / "two", *options, *net[:2])[0] == 2
    code, _, error = typed("sample", tmp_path / "two", *options, *net[2:])
    assert (code, "--control: give --controlnet FOLDER" in error) == (2, True)
    assert typed("sample", tmp_path / "two", *options, *net, "--control-start", 0.9, "--control-end", 0.8)[0] == 2
    code, _, error = typed("sample", tmp_path / "two", *options, *net, "--control-start", 0.9, "--dry-run")
    assert (code, "a whole step between them, found 0.9, 1.0 and --steps 2" in error) == (2, True)
    code, _, error = typed("sample", tmp_path / "two", *options, "--t2i-adapter", tmp_path / "net", *net[2:])
    assert (code, "expected a T2IAdapter, found ControlNetModel" in error) == (1, True)
    assert typed("sample", tmp_path / "two", *options, "--t2i-adapter", tmp_path / "net", *net[2:], "--dry-run")[0] == 1
    (tmp_path / "net" / "diffusion_pytorch_model.safetensors").unlink()
    code, _, error = typed("sample", tmp_path / "two", *options, *net)
    assert code == 1
    assert "its weights can't be loaded: Error no file named diffusion_pytorch_model.safetensors" in error
