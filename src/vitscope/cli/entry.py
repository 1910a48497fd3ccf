"""``vitscope list``: what is registered, and the look-up by name that ``vitscope show`` uses."""

import re
from collections.abc import Mapping
from inspect import cleandoc

from vitscope.cli.terminal import columns, stdout, waiting


def list_entries() -> None:
    """List the diagnostics, studies, interventions, convex heads, labs, findings and families of models."""
    with waiting("Loading"):
        registered = entries()
    console = stdout()
    for kind, classes in registered.items():
        console.print(f"\n[bold]{kind}[/]")
        table = columns("name", "what it is", fold=("what it is",))
        table.show_header = False
        for name, cls in classes.items():
            table.add_row(name, first_sentence(cls))
        console.print(table, highlight=False)
    console.print("vitscope show NAME tells more of one of them.", style="dim", highlight=False)


def diagnostics() -> Mapping[str, type]:
    """Every diagnostic by name, those of the loss as a function of the weights included."""
    from vitscope.diagnostics import default_diagnostics
    from vitscope.engine.curvature import CURVATURES
    from vitscope.engine.diagnostic import DIAGNOSTICS

    default_diagnostics()
    return {**dict(DIAGNOSTICS.items()), **dict(CURVATURES.items())}


def entries() -> Mapping[str, Mapping[str, type]]:
    """All that is registered, by kind and name."""
    from vitscope.convex import blocks, solvers
    from vitscope.convex.block import BLOCKS
    from vitscope.convex.solver import SOLVERS
    from vitscope.findings import findings
    from vitscope.findings.finding import FINDINGS
    from vitscope.interventions import all_interventions
    from vitscope.interventions.studies import all_studies
    from vitscope.labs.lab import all_labs
    from vitscope.models.adapter import ADAPTERS
    from vitscope.models.catalogue import import_installed_adapters
    from vitscope.runs.registry import import_all

    findings()
    import_installed_adapters()
    import_all(blocks.__name__)
    import_all(solvers.__name__)
    return {
        "Diagnostics": diagnostics(),
        "Studies": {study.name: study for study in all_studies()},
        "Interventions": {intervention.name: intervention for intervention in all_interventions()},
        "Convex heads": dict(BLOCKS.items()),
        "Solvers": dict(SOLVERS.items()),
        "Labs": all_labs(),
        "Findings": dict(FINDINGS.items()),
        "Model families": dict(ADAPTERS.items()),
    }


def first_sentence(cls: type) -> str:
    """The first paragraph of a docstring, without its markup."""
    return plain(cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " "))


def plain(text: str) -> str:
    """Docstring markup as plain text, each paragraph in one line: the terminal breaks them where it ends."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("``", "")
    text = re.sub(r"^( *)\.\. math:: ?", r"\1   ", text, flags=re.MULTILINE)
    return re.sub(r"(?<=\S)\n(?=[^\s*-])", " ", text)
