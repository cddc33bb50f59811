"""`fairhuman synth`."""

from typing import Annotated

from typer import Option

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.cli.options import DryRun, NewFolder, Workers, settings_of


def synth(
    out: NewFolder,
    count: Annotated[int, Option(help="Number of pictures; a larger number later adds to them.")],
    size: Annotated[int, Option(help="Side of a picture in pixels.")] = 256,
    seed: Annotated[int, Option(help="Picture k depends on (seed, k) alone.")] = 0,
    degraded: Annotated[float, Option(help="Share of pictures with degraded faces and hands, 0 to 1.")] = 0.0,
    framing: Annotated[str, Option(help="half_body, or full_body: from head to foot.")] = "half_body",
    parts: Annotated[bool, Option("--parts", help="Also masks of head, upper_body, legs, feet, eyes, mouth.")] = False,
    workers: Workers = None,
    dry_run: DryRun = False,
) -> None:
    """Render synthetic people with exact boxes, masks, depth and pose. Run the same command again to resume.

    Example: fairhuman synth people --count 1000 --size 256
    """
    from fairhuman.synth.people import missing_tables
    from fairhuman.synth.run import render_people
    from fairhuman.synth.settings import SynthSettings

    given = {"count": count, "size": size, "seed": seed, "degraded": degraded, "framing": framing, "parts": parts}
    settings = settings_of(SynthSettings, "synth", None, given=given)
    display = ConsoleDisplay()
    if dry_run:
        missing = sum(map(len, missing_tables(out, settings).values()))
        display.say(f"{out}: {missing} of {settings.count} pictures to render, {settings!r}")
        return
    render_people(out, settings, display, workers)
    display.say(f"train on it with data={out}")
