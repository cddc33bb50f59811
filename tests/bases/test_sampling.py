"""Pictures by every base's own pipeline."""

import numpy as np
import torch

from helpers.base_cases import HEIGHT, WIDTH, Case

PROMPTS = ["a woman waving", "a man in a red shirt, with both hands raised above his head"]


def picture(case: Case, prompt: str, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return case.base.draw((HEIGHT, WIDTH), prompt, generator, steps=2, guidance=3.0)


def test_a_picture_depends_on_its_prompt_and_seed_alone(case: Case) -> None:
    first = [picture(case, prompt, seed) for seed, prompt in enumerate(PROMPTS)]
    again = [picture(case, prompt, seed) for seed, prompt in reversed(list(enumerate(PROMPTS)))][::-1]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert first[0].shape == (3, HEIGHT, WIDTH)
    assert not torch.allclose(picture(case, PROMPTS[1], 0), first[0], atol=1e-3)


def test_it_is_the_pipeline_s_own_picture(case: Case) -> None:
    found = case.base.pipeline(
        **case.base.arguments(PROMPTS[0], "", 3.0),
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    ours = picture(case, PROMPTS[0], 0).movedim(0, -1).numpy() / 2 + 0.5
    assert np.allclose(ours, found, atol=1e-5)


def test_guidance_and_steps_are_those_asked_for(case: Case) -> None:
    steps: list[int] = []
    generator = torch.Generator().manual_seed(0)
    plain = case.base.draw((HEIGHT, WIDTH), PROMPTS[0], generator, 3, 1.0, on_step=lambda: steps.append(1))
    assert len(steps) == 3
    guided = case.base.draw((HEIGHT, WIDTH), PROMPTS[0], torch.Generator().manual_seed(0), 3, 6.0)
    assert not torch.allclose(plain, guided, atol=1e-4)
