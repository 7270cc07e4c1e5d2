"""Pages of the reference that are made from the code when the site is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from dagster import AssetCheckSpec, AssetSpec, Definitions
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from fetch_mask_assets.definitions import defs


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the page of the pipeline to the site.

    Source: https://www.mkdocs.org/dev-guide/plugins/#on_files
    """
    page = "\n".join(_pipeline(defs))
    files.append(File.generated(config, "reference/pipeline.md", content=page))
    return files


def _pipeline(definitions: Definitions) -> Iterator[str]:
    graph = definitions.resolve_asset_graph()
    order = {key: place for place, key in enumerate(graph.toposorted_asset_keys)}
    specs = sorted(definitions.resolve_all_asset_specs(), key=lambda spec: order[spec.key])
    checks = [graph.get_check_spec(key) for key in graph.asset_check_keys]
    yield "# Pipeline\n\nMade from the code: what the Dagster UI says of each.\n"
    for spec in specs:
        own = [check for check in checks if check.asset_key == spec.key]
        yield from chain(_asset(spec), _checks(own))
    yield from _table(
        "Jobs", ("job", "does"), ((job.name, job.description) for job in definitions.jobs or ())
    )
    yield from _table(
        "Sensors",
        ("sensor", "does"),
        ((sensor.name, sensor.description) for sensor in definitions.sensors or ()),
    )
    yield from _table(
        "Schedules",
        ("schedule", "at (UTC)", "does"),
        ((each.name, each.cron_schedule, each.description) for each in definitions.schedules or ()),
    )


def _asset(spec: AssetSpec) -> Iterator[str]:
    above = ", ".join(f"`{dep.asset_key.to_user_string()}`" for dep in spec.deps) or "nothing"
    yield f"## Asset `{spec.key.to_user_string()}`\n"
    yield f"{spec.description or ''}\n\nMade from: {above}.\n"


def _checks(checks: Iterable[AssetCheckSpec]) -> Iterator[str]:
    rows = [
        (check.name, "yes" if check.blocking else "no", check.description)
        for check in sorted(checks, key=lambda check: check.name)
    ]
    if rows:
        yield from _table(None, ("check", "blocks the write", "holds when"), rows)


def _table(
    title: str | None, head: tuple[str, ...], rows: Iterable[tuple[object, ...]]
) -> Iterator[str]:
    if title:
        yield f"## {title}\n"
    yield f"| {' | '.join(head)} |\n|{'---|' * len(head)}"
    for name, *cells in sorted(rows, key=str):
        texts = [str(cell or "").replace("|", "\\|").replace("\n", " ") for cell in cells]
        yield f"| {' | '.join([f'`{name}`', *texts])} |"
    yield ""
