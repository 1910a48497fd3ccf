"""The commands that findings advise are there, with these flags, and name the model and the images of their run."""

import json
import re
import shlex
from dataclasses import asdict, fields

import pytest
import typer
from finding_runs import number, run_of

from vitscope.cli import app
from vitscope.cli.flags import make_settings
from vitscope.cli.request import Request
from vitscope.data import images
from vitscope.diagnostics.hessian_spectrum import HessianSpectrum
from vitscope.engine.plan import Plan
from vitscope.findings.checkup import findings
from vitscope.findings.command import SWITCHES, UNKNOWN, VALUES, examined_flags, fill_in
from vitscope.findings.finding import AbstractFinding
from vitscope.findings.negative_curvature import NegativeCurvature
from vitscope.findings.random_weights import RandomWeights
from vitscope.interventions.studies import all_studies
from vitscope.models.load import load

SHOWN = load("vit-micro"), images("digits", limit=8)


def commands_of(finding: AbstractFinding) -> list[str]:
    """Every command in what it advises."""
    texts = [finding.again, *(outcome.advice for outcome in finding.outcomes.each.values())]
    return [one for text in texts for one in re.findall(r"vitscope [^`]*", text if "`" in text else f"`{text}`")]


def parsed(command: str) -> tuple[list[str], dict]:
    """The names of the command and its flags' values; an unknown name or flag raises."""
    names, words = [], shlex.split(command)[1:]
    found, context = typer.main.get_command(app), None
    while hasattr(found, "list_commands"):
        context = found.make_context("vitscope", [words[0]], parent=context)
        names.append(words.pop(0))
        found = found.get_command(context, names[-1])
        assert found is not None, command
    return names, found.make_context(names[-1], words, parent=context).params


@pytest.mark.parametrize("finding", findings(), ids=lambda finding: finding.name)
def test_what_a_finding_advises_can_be_typed(finding: AbstractFinding) -> None:
    studies = {study.name: study for study in all_studies()}
    for command in commands_of(finding):
        typed = command.replace("{examined}", "digits").replace("{needed}", "40").replace("LAYER,LAYER", "3,4")
        names, values = parsed(typed)
        if names[0] == "study":  # the flags' values are some of the study's
            assert make_settings(studies[names[1]], values).grid(*SHOWN, Plan()).settings


def test_a_command_that_is_not_there_is_noticed() -> None:
    with pytest.raises(Exception, match="sizes"):
        parsed("vitscope study lesion digits --sizes 3")
    with pytest.raises(Exception, match="leson"):
        parsed("vitscope study leson digits")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", UNKNOWN),
        ("vitscope train vit-micro", UNKNOWN),
        ("vitscope checkup", ""),
        ("vitscope checkup digits --limit 64 --out x --resume", "digits"),
        (
            "vitscope checkup --deep timm/vit --weights 'my file.pt' --images=a/b --label y --limit 8 --pretrained",
            "timm/vit --weights 'my file.pt' --images=a/b --label y --pretrained",
        ),
        ("vitscope study lesion m --of head --images d --split val --workers 2", "m --images d --split val"),
        (
            "vitscope checkup timm/x --weights a.pt --part teacher --images t.csv --root d --bits 12 "
            "--label-order natural --max-pixels 9 --batch-size 4 --workers 2 --set a=1 --set b=2",
            "timm/x --weights a.pt --part teacher --images t.csv --root d --bits 12 --label-order natural "
            "--max-pixels 9 --set a=1 --set b=2",
        ),
        ("vitscope measure hessian-spectrum --top 5 m --images d --augment strong", "m --images d --augment strong"),
    ],
)
def test_the_model_and_the_images_are_those_of_the_runs_own_command(command: str, said: str) -> None:
    run = run_of()
    run.tree.attrs["provenance"] = json.dumps({"command": command})
    assert examined_flags(run) == said
    assert fill_in("`vitscope study lesion {examined} --of head`", run) == (
        f"`vitscope study lesion {said} --of head`" if said else "`vitscope study lesion --of head`"
    )
    assert fill_in("Nothing.", run) == "Nothing."


def test_without_a_command_placeholders_stand() -> None:
    assert fill_in("`vitscope checkup {examined}`", run_of()) == f"`vitscope checkup {UNKNOWN}`"
    assert fill_in("`vitscope checkup {examined}`", None) == f"`vitscope checkup {UNKNOWN}`"


def test_no_flag_that_says_what_is_examined_is_lost() -> None:
    elsewhere = {"model", "limit", "out", "resume", "batch-size"}  # the model has no flag; the others say how
    flags = {str(one.metadata.get("flag", one.name)).replace("_", "-"): one.type for one in fields(Request)}
    switches = {name for name, kind in flags.items() if kind in (bool, "bool")} - elsewhere
    assert switches == SWITCHES
    assert flags.keys() - switches - elsewhere == VALUES


def test_curvature_is_asked_for_again_with_the_settings_it_was_measured_with() -> None:
    settings = asdict(HessianSpectrum(batch=8, batches=6, top=3, weight_decay=0.1))
    run = run_of(("hessian-spectrum", number("negative_share", 0.12, 0.2, 6)), settings={"hessian-spectrum": settings})
    run.tree.attrs["provenance"] = json.dumps({"command": "vitscope checkup m --images d --seed 3"})
    claim = NegativeCurvature().apply(run)
    assert claim is not None
    (command,) = re.findall(r"`(vitscope [^`]*)`", claim.advice)
    assert re.fullmatch(
        r"vitscope measure hessian-spectrum m --images d --seed 3 --batches \d+ --top 3 --batch 8 --weight-decay 0.1",
        command,
    )
    assert parsed(command.replace(" m --images d", " digits"))[0] == ["measure", "hessian-spectrum"]


def test_the_projects_own_models_are_not_said_to_have_trained_weights() -> None:
    claim = RandomWeights().apply(run_of(weights="random", model="vit-tiny"))
    assert claim is not None
    assert "--pretrained" not in claim.advice
    (command,) = re.findall(r"`(vitscope [^`]*)`", claim.advice)
    assert parsed(command)[1]["model"] == "vit-tiny"
    other = RandomWeights().apply(run_of(weights="random", model="timm/resnet18"))
    assert other is not None
    assert "--pretrained" in other.advice
