"""The recipe files that come with the package, by FAMILY/NAME; reading one needs no model code."""

from itertools import takewhile
from pathlib import Path

from dalle2_train.errors import InputError

FAMILIES = ("clip", "prior", "ar_prior", "decoder", "upsampler", "direct")
_FOLDER = Path(__file__).parent


def list_recipes() -> list[str]:
    """Every packaged recipe as FAMILY/NAME, families in the order in which they are trained."""
    return [
        f"{family}/{file.stem}" for family in FAMILIES for file in sorted((_FOLDER / family).glob("*.yaml"))
    ]


def header(name_or_file: str) -> str:
    """The lines of comments that a recipe begins with, each with its newline. Raises InputError as `recipe_path`."""
    lines = recipe_path(name_or_file).read_text().splitlines(keepends=True)
    return "".join(takewhile(lambda line: line.startswith("#"), lines))


def recipe_path(name_or_file: str) -> Path:
    """The YAML file of a packaged FAMILY/NAME, or a user's own file. Raises InputError when there is neither."""
    if name_or_file in list_recipes():
        return _FOLDER / f"{name_or_file}.yaml"
    if Path(name_or_file).suffix in (".yaml", ".yml") and Path(name_or_file).is_file():
        return Path(name_or_file)
    raise InputError(
        f"no recipe {name_or_file!r}; packaged are {', '.join(list_recipes())}; for your own give its .yaml file"
    )
