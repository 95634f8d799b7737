"""The comparison as a page of the documents, made of its numbers."""

from collections.abc import Mapping
from typing import Any

_PAGE = """# What each piece of unCLIP buys

Written by `make comparison`, which trains every network on `{source}` for {minutes:.3g} CPU-minutes and judges every
variant on the same pictures. Small pictures are enlarged bicubically where no upsampler is. All variants share the
CLIP, and those with the same decoder its weights; a variant of several networks was trained for as many times as long.
The numbers: [comparison.json](results/comparison.json).

![Captions drawn by every variant, and the real pictures](images/comparison.png)

{table}
± is one standard error. The judge and its scores: [the science](science.md#evaluation).

| network | recipe | parameters | steps | CPU seconds |
| --- | --- | ---: | ---: | ---: |
{networks}"""


def page(result: Mapping[str, Any], table: str) -> str:
    """Markdown. result: what comparison.json says; table: that of `side_by_side`."""
    networks = "".join(
        f"| {name} | `{' '.join(one['recipe'])}` | {one['num_parameters']:,} | {one['num_steps']:,} | "
        f"{one['cpu_seconds']:,.0f} |\n"
        for name, one in result["networks"].items()
    )
    return _PAGE.format(
        minutes=result["cpu_seconds"] / 60, source=result["source"], networks=networks, table=table
    )
