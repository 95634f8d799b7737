"""cluster/README.md names every file, and its commands are ones that there are."""

import re
import shlex

import pytest
from cluster_files import CLUSTER, LAUNCHERS, SBATCH, load
from ray.dashboard.modules.job.cli import job_cli_group
from ray.scripts.scripts import cli as ray_cli

from dalle2_train.cli import build_parser

README = (CLUSTER / "README.md").read_text()


def commands() -> list[list[str]]:
    """The words of every line of a fenced block, lines that go on put together."""
    blocks = re.findall(r"^```\n(.*?)^```", README, re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    # A quoted text over several lines is no command of ours.
    return [shlex.split(line, comments=True) for line in lines if line.count("'") % 2 == 0]


def trainings() -> list[list[str]]:
    """The arguments of every dalle2-train, those that other programs start among them."""
    found = [shlex.split(load(CLUSTER / "kuberay" / "rayjob.yaml")["spec"]["entrypoint"])[1:]]
    for words in commands():
        if words[:1] == ["dalle2-train"]:
            found.append(words[1:])
        elif "--" in words and words[words.index("--") + 1] == "dalle2-train":
            found.append(words[words.index("--") + 2 :])
        elif words[:1] == ["sbatch"]:
            script = next(number for number, word in enumerate(words) if word.endswith(SBATCH.name))
            found.append(["train", *words[script + 1 :]])
    return found


def ray_commands() -> list[list[str]]:
    """The words after `ray`, in the README and in what the launcher runs."""
    started = [
        shlex.split(command)
        for file in LAUNCHERS
        for kind in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in load(file)[kind]
    ]
    found = []
    for words in commands() + started:
        while words and "=" in words[0]:
            words = words[1:]
        if words[:1] == ["ray"]:
            found.append(words[1 : words.index("--") if "--" in words else None])
    return found


def test_every_file_is_named_and_every_name_is_a_file():
    linked = {name for name in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in name}
    there = {
        file.relative_to(CLUSTER).as_posix()
        for file in CLUSTER.rglob("*")
        if file.is_file() and file.name != "README.md"
    }
    elsewhere = {name for name in linked if name.startswith("../")}
    assert linked - elsewhere == there
    assert [name for name in elsewhere if not (CLUSTER / name).is_file()] == []


def test_every_file_in_a_command_is_there():
    # Some stand at the end of a $(…).
    named = {word.rstrip(")") for words in commands() for word in words if word.startswith("cluster/")}
    assert len(named) > 8
    for name in named:
        assert list(CLUSTER.parent.glob(name)), name


def test_every_heading_that_is_linked_is_there():
    headings = {re.sub(r"[^\w -]", "", line[3:]).lower().replace(" ", "-") for line in README.splitlines()
                if line.startswith("## ")}  # fmt: skip
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings


@pytest.mark.parametrize("arguments", trainings(), ids=" ".join)
def test_a_command_of_ours_parses(arguments):
    build_parser().parse_args(arguments)


def test_trainings_of_every_way_are_shown():
    assert len([arguments for arguments in trainings() if arguments[0] == "train"]) >= 4


@pytest.mark.parametrize("words", ray_commands(), ids=" ".join)
def test_a_command_of_ray_has_the_options_that_it_is_given(words):
    group = job_cli_group if words[0] == "job" else ray_cli
    name, *arguments = words[1:] if words[0] == "job" else words
    known = {option for parameter in group.commands[name].params for option in parameter.opts}
    assert {word.partition("=")[0] for word in arguments if word.startswith("-")} <= known
