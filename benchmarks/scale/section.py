"""The section of docs/how-to/cluster.md that is made from a result."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "cluster.md"
_BEGIN, _END = "<!-- scale -->", "<!-- /scale -->"
TRIALS = ("workers", "ray", "peer", "nodes", "driver")
_NOT_YET = "Not measured on this version yet: `python -m benchmarks.scale` writes this section."


def write_section(results: Path, page: Path = PAGE) -> Path:
    """Replace the section of the page by what the newest result says."""
    page.write_text(with_section(page.read_text(encoding="utf-8"), section(newest(results))), encoding="utf-8")
    return page


def with_section(page: str, content: str) -> str:
    """Return the text of the page with another section."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{content}\n{_END}{after}"


def newest(results: Path) -> Path | None:
    """The result that was measured last; None where there is none."""
    found = [(json.loads(path.read_text())["conditions"]["date"], path) for path in results.glob("scale-*.json")]
    return max(found)[1] if found else None


def section(result: Path | None) -> str:
    """Return what a result says."""
    if result is None:
        return _NOT_YET
    content = json.loads(result.read_text())
    facts = content["conditions"]
    loads = ", ".join(f"{content[name]['load_before']:g} ({name})" for name in TRIALS)
    lines = [
        f"Measured on {facts['cores']} cores ({facts['processor']}) with the model `{content['model']}` and"
        f" {content['data']} JPEG slices; medians, lowest and highest in brackets"
        f" ([{result.name}](../../benchmarks/results/{result.name})). Load of the machine before each trial: {loads}.",
        "",
        *_workers(content["workers"]),
        *_ray(content["ray"]["whole_process_seconds"]),
        *_others(content),
        "",
        *_simulation(content["simulation"]),
    ]
    return "\n".join(lines)


def _workers(trial: Mapping[str, Any]) -> Iterator[str]:
    yield f"**Processes of one machine**, {trial['images']:,} images, once they make rows:"
    yield ""
    yield from _row("`--workers`", "images/s", "of the ceiling of the cores")
    yield "| ---: | ---: | ---: |"
    for count, rate in trial["images_per_second"].items():
        share = trial["of_ceiling"][count]
        yield from _row(count, _spread(rate, ",.0f"), _spread(share, ".1%"))
    yield from _row("ceiling", _spread(trial["ceiling_images_per_second"], ",.0f"), "")
    yield ""


def _ray(trial: Mapping[str, Any]) -> Iterator[str]:
    yield "**Ray on the same cores**, from the start of the command to its end, with a cluster that is there:"
    yield ""
    yield from _row("images", "without Ray, s", "`--on ray`, s", "overhead", "same part files")
    yield "| ---: | ---: | ---: | ---: | --- |"
    for images, one in trial.items():
        same = "yes" if one["same_parts"] else "no"
        seconds = (_spread(one["local"], ".1f"), _spread(one["ray"], ".1f"))
        yield from _row(f"{int(images):,}", *seconds, _spread(one["overhead"], ".1%"), same)
    yield ""


def _others(content: Mapping[str, Any]) -> Iterator[str]:
    peer, nodes, driver = content["peer"], content["nodes"], content["driver"]
    yield (
        f"**Against Ray Data** (`read_images` and `map_batches` with the same graph, {peer['images']:,} images, whole"
        f" process): {_spread(peer['times_as_fast'], '.1f')} times as fast."
    )
    yield ""
    same = "the same part files as" if nodes["same_parts"] else "**other part files than**"
    there = f"{nodes['parts_before_the_kill']} of {nodes['parts']} parts were there"
    yield (
        f"**Machines that are lost**: {nodes['killed']} of {nodes['nodes']} nodes of a cluster on loopback were killed"
        f" when {there}; {nodes['rows']:,} rows, {same} a local run."
    )
    yield ""
    yield (
        f"**The driver** hands out {1 / driver['seconds_per_part']:,.0f} parts a second, while it shares these cores"
        " with actors that answer at once."
    )


def _simulation(trial: Mapping[str, Any]) -> Iterator[str]:
    runs, measured = trial["runs"], trial["measured"]
    yield "### More machines: a simulation, not a measurement"
    yield ""
    yield (
        f"A discrete-event simulation (`benchmarks/scale/simulation.py`) of machines with {runs[0]['cores']} cores,"
        f" each of which makes the {measured['core_rate']:,.0f} images/s that were measured, and of storage that gives"
        f" {runs[0]['storage_bytes_s'] / 1e6:,.0f} MB/s to all ({measured['image_bytes'] / 1000:.0f} kB a file)."
        f" The driver lists {measured['listed_per_s']:,.0f} files a second before and counts at least"
        f" {measured['counted_per_s']:,.0f} rows a second after, alone: both were measured on a local disk whose files"
        " were in memory."
    )
    yield ""
    yield from _row("images", "machines", "time", "parts", "of what the cores could do", "read, MB/s", "limit")
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for one in runs:
        figures = (_duration(one["seconds"]), f"{one['parts']:,}", f"{one['efficiency']:.0%}")
        read = f"{one['read_bytes_s'] / 1e6:,.0f}"
        yield from _row(f"{one['images']:,}", f"{one['nodes']}", *figures, read, one["limit"])
    yield ""
    limits = trial["limits"]
    driver = " and ".join(
        f"{rate:,.0f} images/s in a run of {int(images):,}"
        for images, rate in limits["driver_images_per_second"].items()
    )
    yield (
        f"What limits: the driver can hand out parts for {driver}; the storage assumed here gives"
        f" {limits['storage_images_per_second']:,.0f} images/s. Where the driver is the limit, it is by listing and"
        " counting, not by handing out."
    )


def _row(*cells: str) -> Iterator[str]:
    yield f"| {' | '.join(cells)} |"


def _spread(values: Mapping[str, Any], form: str) -> str:
    repeats: Sequence[float] = values["repeats"]
    median = format(values["median"], form)
    return median if len(repeats) < 2 else f"{median} ({values['low']:{form}} to {values['high']:{form}})"


def _duration(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 36_000 else f"{seconds / 3600:,.1f} h"
