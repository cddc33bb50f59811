"""`fairhuman studio`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.cli.options import DryRun, Host, Port, ProxyHeaders, check_existing, settings_of


def studio(
    paths: Annotated[
        list[str] | None, Argument(help="Data sets, runs or folders of them, here by default; then key=value.")
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    read_only: Annotated[bool, Option("--read-only", help="Show everything, change nothing.")] = False,
    url: Annotated[str | None, Option(help="Public address, such as https://studio.example.org.")] = None,
    proxy_headers: ProxyHeaders = None,
    dry_run: DryRun = False,
) -> None:
    """Open data sets, runs and samples on a local web page: look, paint regions, watch runs, compare.

    Example: fairhuman studio runs/demo
    """
    from fairhuman.studio.settings import StudioSettings

    folders = [Path(text) for text in paths or () if "=" not in text or Path(text).exists()]
    overrides = [text for text in paths or () if "=" in text and not Path(text).exists()]
    given = {"read_only": read_only or None, "url": url}
    settings = settings_of(StudioSettings, "studio", overrides, given=given)
    folders = folders or [Path()]
    check_existing(*folders)
    display = ConsoleDisplay()
    from fairhuman.studio.places import find_places

    found = find_places(folders, settings.source.format)
    counts = (("run", found.runs), ("data set", found.data), ("folder of samples", found.samples))
    for what, named in counts:
        if named:
            display.say(f"{what}: {', '.join(named)}")
    if dry_run:
        display.say(f"would serve them at {host}:{port}; nothing is written")
        return
    from fairhuman.studio.app import serve_studio

    serve_studio(folders, settings, host, port, display.say, proxy_headers)
