"""The comparison as a page of the documents, made of its numbers."""

from collections.abc import Mapping
from typing import Any

_PAGE = """# What each piece of unCLIP buys

Written by `make comparison`, which trains every network on `{source}` for about {minutes:.3g} CPU-minutes and judges
every variant on the same pictures{measured}. Small pictures are enlarged bicubically where no upsampler is. All
variants share the CLIP, and those with the same decoder its weights; a variant of several networks was trained for as
many times as long.
Decoders draw as the quickstart's does; those of "guided" variants take more steps, with guidance.
The numbers: [comparison.json](results/comparison.json).

![Captions drawn by every variant, and the real pictures](images/comparison.png)

{table}
± is one standard error. The judge and its scores: [the science](science.md#evaluation).

| variant | networks | decoder's DDIM steps | guidance | CPU seconds |
| --- | --- | ---: | ---: | ---: |
{variants}
| network | recipe | parameters | steps | CPU seconds |
| --- | --- | ---: | ---: | ---: |
{networks}"""


def page(result: Mapping[str, Any], table: str) -> str:
    """Markdown. result: what comparison.json says; table: that of `side_by_side`."""
    measured = f" ({result['measured']})" if result["measured"] else ""
    networks = "".join(
        f"| {name} | `{' '.join(one['recipe'])}` | {one['num_parameters']:,} | {one['num_steps']:,} | "
        f"{one['cpu_seconds']:,.0f} |\n"
        for name, one in result["networks"].items()
    )
    return _PAGE.format(
        minutes=result["cpu_seconds"] / 60,
        source=result["source"],
        measured=measured,
        table=table,
        variants="".join(_variant(label, one) for label, one in result["variants"].items()),
        networks=networks,
    )


def _variant(label: str, found: Mapping[str, Any]) -> str:
    decoder = found["sampler"].get("decoder")
    how = f"{decoder['num_steps']} | {decoder['guidance_scale']:g}" if decoder else "– | –"
    return f"| {label} | {', '.join(found['networks'])} | {how} | {found['cpu_seconds']:,.0f} |\n"
