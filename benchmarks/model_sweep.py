"""Every kind of model of timm, torchvision and transformers, loaded, walked and measured with random weights.

    python benchmarks/model_sweep.py --out sweep.jsonl [--library timm] [--limit-parameters 2e8] [--seconds 300]
    python benchmarks/model_sweep.py --out sweep.jsonl --table docs/reference/model-sweep.md

A kind is a maker's function (timm), a source file (torchvision) or a class (transformers), and for timm a family of
names. The model of each kind that looks smallest is tried, with the smallest input that it takes. Each line of the file
says how a model was read, how far the walk's outputs are from those of its own forward pass, what was measured, or
the sentence with which it was refused. Models already in the file are skipped. ``--table`` writes the file as a page.
"""

import argparse
import importlib
import json
import re
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import vitscope
from vitscope.diagnostics import default_diagnostics
from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS
from vitscope.models.own_forward import call_module, gap
from vitscope.models.subject import Composition, Unwatched

SIDES = (64, 128)
"""Input sides in pixels to try; the first that the model takes is used."""
SMALL = [
    "test",
    "zepto",
    "atto",
    "femto",
    "pico",
    "nano",
    "xxs",
    "xx_small",
    "xxtiny",
    "xtiny",
    "micro",
    "mini",
    "tiny",
    "xs",
    "x_small",
    "small",
    "s0",
    "b0",
    "m0",
    "t0",
    "l0",
    "s",
    "lite",
    "050",
]
SLOW = ("googlenet", "inception_v3")
POOLED = ("vit_base_patch16_siglip_224", "vit_pe_core_tiny_patch16_384", "vit_small_patch14_reg4_dinov2")
WRONG = 1e-3
"""Smallest difference of the outputs, relative to the largest, that cannot be rounding."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--library", nargs="*", default=["torchvision", "timm", "transformers"])
    parser.add_argument("--limit-parameters", type=float, default=1.5e8)
    parser.add_argument("--seconds", type=int, default=240, help="limit for one model; slower ones are reported")
    parser.add_argument("--only", help="only names that contain this")
    parser.add_argument("--again", action="store_true", help="repeat models that are already in the file")
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    if given.table:
        given.table.write_text(page(rows_in(given.out)))
        return
    torch.set_num_threads(1)
    done = set() if given.again else {(row["library"], row["name"]) for row in rows_in(given.out)}
    for library in given.library:
        for name, kind, size, build in KINDS[library]():
            if (library, name) in done or (given.only and given.only not in name):
                continue
            row = {"library": library, "name": name, "class": kind, "parameters": size}
            if size > given.limit_parameters:
                row |= {"outcome": "skipped", "sentence": f"{size / 1e6:,.0f} million weights are too many here"}
            else:
                row |= within(given.seconds, lambda build=build: examined(build))
            with given.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row["outcome"], library, name, row.get("family", ""), row.get("sentence", ""), flush=True)


def rows_in(path):
    """The lines of the file, the last one of each model."""
    lines = path.read_text().splitlines() if path.exists() else []
    return list({(row["library"], row["name"]): row for row in map(json.loads, lines)}.values())


def within(seconds, work):
    """The result of the work on a model, or that it took too long, or the end of a traceback."""

    def stop(*_):
        raise TooLong

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    started = time.monotonic()
    try:
        found = work()
    except TooLong:
        found = {"outcome": "skipped", "sentence": f"not done in {seconds} s"}
    except Exception:
        found = {"outcome": "traceback", "sentence": traceback.format_exc()[-1500:]}
    finally:
        signal.alarm(0)
    return {**found, "seconds": round(time.monotonic() - started, 1)}


def examined(build):
    """How a model is read, and its walk's difference."""
    try:
        module, side = build()
    except Unmade as error:
        return {"outcome": "skipped", "sentence": str(error)}
    try:
        subject = loaded(module, side)
        images = probe(subject)
        with torch.inference_mode():
            difference = gap(
                subject.anatomy.walk(images, Unwatched()), call_module(module, images, arguments(module, images))
            )
        run = vitscope.measure(subject, pictures(subject), default_diagnostics())
    except UserError as error:
        return {"outcome": "refused", "sentence": str(error)}
    read = "adapter" if isinstance(subject.anatomy, Composition) else "blocks"
    return {
        "outcome": "wrong" if not difference < WRONG else read if subject.places else "outputs",
        "family": subject.family,
        "units": len(subject.places),
        "input": list(subject.preprocessing.shape),
        "difference": difference,
        "measured": sorted(run.tree.children),
        "sentence": " ".join(subject.notes),
    }


def loaded(module, side):
    """The subject, with a small input if one is given."""
    if side is None:
        return vitscope.load(module)
    return vitscope.load(module, input=vitscope.PixelInput(side, 3, (0.5,), (0.25,)))


def arguments(module, images):
    adapter = next((one for _, one in ADAPTERS.items() if one.matches(module)), None)
    return adapter.call_arguments(module, images) if adapter else {}


def probe(subject):
    return torch.randn(2, *subject.preprocessing.shape, generator=torch.Generator().manual_seed(1))


def pictures(subject):
    rng = np.random.default_rng(0)
    shape = (*subject.preprocessing.shape[1:], 3)
    shown = [Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)) for _ in range(2)]
    return vitscope.images((shown, np.arange(2)) if subject.class_count > 1 else shown)


class TooLong(BaseException):
    """A timeout that code catching ``Exception`` does not catch."""


class Unmade(Exception):
    """A model that its library cannot make from its name alone."""


Shape = tuple[int, int, int]
Kind = tuple[str, str, int, Callable[[], tuple[nn.Module, int | None]]]


def first_of_each(names: Iterable[str], kind: Callable[[str], Hashable]) -> Iterator[str]:
    """One name of each kind, the one that looks smallest."""
    found: dict[Hashable, str] = {}
    for name in sorted(names, key=looks):
        found.setdefault(kind(name), name)
    return iter(found.values())


def looks(name: str) -> tuple[int, int, str]:
    """A key that sorts names by the apparent size of the model."""
    words = re.split(r"[_.]", name)
    return (min((SMALL.index(word) for word in words if word in SMALL), default=len(SMALL)), len(name), name)


def weight_count(build: Callable[[], nn.Module]) -> tuple[str, int]:
    """The class's name and its number of weights, counted without memory for them if possible."""
    try:
        with torch.device("meta"):
            module = build()
    except Exception:  # some makers read their weights
        module = build()
    return type(module).__name__, sum(parameter.numel() for parameter in module.parameters())


def of_torchvision() -> Iterator[Kind]:
    from torchvision import models

    for name in first_of_each(models.list_models(module=models), lambda one: models.get_model_builder(one).__module__):

        def build(name: str = name) -> nn.Module:
            return models.get_model(name, **({"init_weights": False} if name in SLOW else {}))

        yield name, *weight_count(build), lambda build=build: small_enough(lambda _: build(), (3, 224, 224))


def of_timm() -> Iterator[Kind]:
    """One model per maker's function, then one per family of names of each function."""
    import timm

    names = timm.list_models()
    makers = list(first_of_each(names, lambda name: maker(timm.models.model_entrypoint(name))))
    families = first_of_each(names, lambda name: (maker(timm.models.model_entrypoint(name)), name_family(name)))
    for name in dict.fromkeys([*makers, *POOLED, *families]):
        kind, size = weight_count(lambda name=name: timm.create_model(name))
        yield name, kind, size, lambda name=name: timm_model(name)


def maker(entry: Callable[..., nn.Module]) -> tuple[str, ...]:
    return (entry.__module__, *(name for name in entry.__code__.co_names if name.startswith(("_create", "_gen"))))


def name_family(name: str) -> str:
    found = re.match(r"[a-z]+\d?[a-z]*", name)
    return found.group() if found else name


def timm_model(name: str) -> tuple[nn.Module, int | None]:
    """The model with the smallest input that it takes, by its own argument if it has one; otherwise its default."""
    import timm

    def build(side: int | None) -> nn.Module:
        try:
            return timm.create_model(name, **({"img_size": side} if side else {}))
        except TypeError:
            return timm.create_model(name)

    return small_enough(build, (3, 224, 224))


def small_enough(build: Callable[[int | None], nn.Module], default: Shape) -> tuple[nn.Module, int | None]:
    """The model and the first side of an input that it takes; None for its own."""
    last: Exception = Unmade()
    for side in (*SIDES, None):
        try:
            module = seeded(lambda side=side: build(side))
            own = getattr(module, "default_cfg", {}).get("input_size", default)
            with torch.inference_mode():
                module(torch.zeros(1, *((3, side, side) if side else own)))
            return module, side
        except Exception as error:
            last = error
    raise Unmade(f"it does not run as its library makes it: {first_line(last)}") from last


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def of_transformers() -> Iterator[Kind]:
    import transformers
    from transformers.models.auto import modeling_auto

    transformers.logging.set_verbosity_error()
    maps = (modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, modeling_auto.MODEL_FOR_IMAGE_MAPPING_NAMES)
    names = [name for one in maps for names in one.values() for name in ([names] if isinstance(names, str) else names)]
    for name in dict.fromkeys(names):
        build = getattr(transformers, name, None)
        if build is None:
            continue
        try:
            size = weight_count(lambda build=build: build(small(build)))[1]
        except Exception:  # reported when it is made
            size = 0
        yield name, name, size, lambda build=build: transformers_model(build)


def small(build):
    """The class's default configuration with two layers, or one per stage, if it takes that."""
    config = build.config_class
    for given in ({"num_hidden_layers": 2}, {"depths": [1, 1, 1, 1]}, {}):
        try:
            made = config(**given)
        except Exception:
            continue
        if not given or any(key in vars(config()) for key in given):
            return made
    return config()


def transformers_model(build):
    try:
        return seeded(lambda: build(small(build))), None
    except Exception as error:
        raise Unmade(
            f"transformers does not make it from its default configuration: {str(error).splitlines()[0]}"
        ) from error


def seeded(build):
    torch.manual_seed(0)
    return build().eval()


KINDS = {"torchvision": of_torchvision, "timm": of_timm, "transformers": of_transformers}

OUTCOMES = {
    "adapter": "read unit by unit",
    "blocks": "read at its blocks",
    "outputs": "only its outputs are read",
    "refused": "refused",
    "skipped": "not tried",
    "wrong": "WRONG OUTPUTS",
    "traceback": "TRACEBACK",
}


def page(rows):
    """The table as a page of the reference."""
    versions = ", ".join(f"{name} {importlib.import_module(name).__version__}" for name in KINDS)
    counts = Counter(row["outcome"] for row in rows)
    told = ", ".join(f"{counts[name]} {text}" for name, text in OUTCOMES.items() if counts[name])
    worst = max((row["difference"] for row in rows if "difference" in row), default=0.0)
    lines = [
        "# Models of three libraries",
        "",
        f"{len(rows)} kinds of models of {versions}: {told}. Wrong outputs: {counts['wrong']}. "
        f"Tracebacks: {counts['traceback']}.",
        "",
        "A kind is a function that makes models and a family of names (timm), a source file (torchvision) or a class "
        "(transformers). One model of each was made with random weights, loaded, and measured on two pictures. "
        "*Difference* is that of the walk's outputs and those of the model's own forward pass, relative to the "
        f"largest; the greatest is {worst:.1g}. Written by `benchmarks/model_sweep.py`.",
    ]
    for library in KINDS:
        own = sorted((row for row in rows if row["library"] == library), key=lambda row: (row["class"], row["name"]))
        if own:
            lines += [
                "",
                f"## {library}",
                "",
                "| class | model | how | units | difference | said |",
                "|---|---|---|---|---|---|",
            ]
            lines += [line(row) for row in own]
    return "\n".join(lines) + "\n"


def line(row):
    how = row.get("family", "") if row["outcome"] == "adapter" else OUTCOMES[row["outcome"]]
    difference = f"{row['difference']:.0e}" if "difference" in row else ""
    said = " ".join(row.get("sentence", "").replace("|", "/").split())
    return f"| {row['class']} | {row['name']} | {how} | {row.get('units', '')} | {difference} | {said[:300]} |"


if __name__ == "__main__":
    main()
