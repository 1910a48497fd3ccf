"""Claims of a bench: which contestant is faster, and what binds one whose work fell by more than its time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np

from vitscope.deploy.bench_results import BenchFigures
from vitscope.deploy.timing import TimeRatio
from vitscope.measurement.claim import Claim, ClaimKind, Verdict, sort_claims
from vitscope.measurement.estimate import rate_of

MARGIN = 0.02
"""Times within this share count as equal: the memory layout of a process can change them by as much."""
_APART = 1e-3
"""Logits that differ by more than this share of the largest belong to another model."""
_LAYOUT = "Mytkowicz et al., Producing wrong data without doing anything obviously wrong, ASPLOS 2009"
_ROOFLINE = "Williams et al., Roofline, Communications of the ACM 2009"
_RULE = (
    "Its time over the first's, round by round, with the exact interval of the median: faster if the interval lies "
    f"below {1 - MARGIN:g}, slower if above {1 + MARGIN:g}, the same if between, undecided otherwise."
)


@final
@dataclass(frozen=True)
class _Pair:
    """A contestant against the first, at one batch size."""

    found: BenchFigures
    contestant: int
    batch: int
    ratio: TimeRatio
    rate: float

    @property
    def name(self) -> str:
        return self.found.names[self.contestant]

    @property
    def at(self) -> str:
        return f"at batch {self.batch}"

    @property
    def ends(self) -> tuple[float, float]:
        return self.ratio.interval(self.rate)

    @property
    def work(self) -> float | None:
        """Its multiply-adds over the first's; None if either is unknown."""
        own, first = self.found.adds.get(self.contestant), self.found.adds.get(0)
        return None if own is None or not first else own / first

    @property
    def falls_short(self) -> bool:
        """Whether its work fell by more than its time did."""
        return self.work is not None and self.work < 1 - MARGIN and self.ends[0] > self.work + MARGIN

    @property
    def milliseconds(self) -> tuple[float, float]:
        """The first's time, and its own."""
        timed = self.found.timed
        return tuple(1e3 * timed[one, self.batch].median.value for one in (0, self.contestant))  # pyright: ignore[reportReturnType]


def judge_bench(found: BenchFigures) -> tuple[Claim, ...]:
    """The claims of a bench, in the order in which they are shown."""
    places = [at for at in found.timed if at[0] > 0 and found.ratio(*at) is not None]
    rate = rate_of(len(places))
    claims: list[Claim] = []
    for contestant, batch in sorted(places):
        ratio = found.ratio(contestant, batch)
        assert ratio is not None, "those without were left out"
        claims.append(_claim_time(_Pair(found, contestant, batch, ratio, rate)))
    return sort_claims((*claims, *_claim_logits(found), *_claim_reading(found)))


def _claim_time(pair: _Pair) -> Claim:
    """Which of the two is faster. Decided claims come first, large differences before small ones."""
    verdict, said = _compare(pair)
    why, advice = _explain(pair) if pair.falls_short else ("", "")
    if why and verdict is Verdict.HOLDS:
        said = f"{said}, though its work is {pair.work:.2g} of the first's"
    decided = verdict is not Verdict.UNDECIDED
    size = min(abs(math.log2(pair.ratio.median)), 1.0)
    return Claim(
        name=f"faster: {pair.name}, {pair.batch}",
        statement=f"{pair.name} takes less time than {pair.found.names[0]} {pair.at}",
        verdict=verdict,
        figure=_figure(pair) + (f". {why}" if why else ""),
        rule=_RULE,
        reference=_LAYOUT + (f"; {_ROOFLINE}" if why else ""),
        advice=advice or ("" if decided else "Give it more time (--seconds), on a machine that does nothing else."),
        evidence="time-ratio/time_ratio",
        weight=(0.5 if decided else 0.2) + 0.3 * size,
        headline=f"{said}.",
        rate=pair.rate,
    )


def _compare(pair: _Pair) -> tuple[Verdict, str]:
    """Whether it takes less time than the first, and the sentence that says so."""
    low, high = pair.ends
    share, first = f"{pair.ratio.median:.3g}", pair.found.names[0]
    if high < 1 - MARGIN:
        return Verdict.HOLDS, f"{pair.name} is faster than {first} {pair.at}: it takes {share} of the time"
    if low > 1 + MARGIN:
        return Verdict.FAILS, f"{pair.name} is slower than {first} {pair.at}: it takes {share} times as long"
    if low > 1 - MARGIN and high < 1 + MARGIN:
        return Verdict.FAILS, f"{pair.name} is as fast as {first} {pair.at}, to within {100 * MARGIN:g} %"
    return Verdict.UNDECIDED, f"No difference between {pair.name} and {first} is shown {pair.at}"


def _figure(pair: _Pair) -> str:
    low, high = pair.ends
    first, own = map(_in_words, pair.milliseconds)
    ends = f"{low:.3g} to {high:.3g}" if math.isfinite(low) else "unbounded with so few rounds"
    interval = f"{100 * (1 - pair.rate):.3g} % interval {ends}"
    work = "" if pair.work is None or abs(pair.work - 1) < 5e-4 else f"; multiply-adds {pair.work:.3g} of the first's"
    rounds = len(pair.ratio.values)
    return f"{own} against {first}, ratio {pair.ratio.median:.3g}, {interval}, {rounds} rounds{work}"


def _in_words(milliseconds: float) -> str:
    return f"{milliseconds:,.0f} ms" if milliseconds >= 1000 else f"{milliseconds:.3g} ms"


def _explain(pair: _Pair) -> tuple[str, str]:
    """What binds a contestant whose work fell by more than its time, as far as it was measured, and what to try."""
    begin = f"The work fell to {pair.work:.2f} and the time to {pair.ratio.median:.2f}, because "
    for reason in (_bound_by_starts, _bound_alone, _bound_by_memory, _bound_elsewhere):
        found = reason(pair)
        if found is not None:
            return f"{begin}{found[0]}", found[1]
    return f"The work fell to {pair.work:.2f} and the time to {pair.ratio.median:.2f}; what binds it is not known", (
        "Add --backend eager: what a pass is made of is read there."
    )


def _share_of_time(pair: _Pair, amount: float | int, gauge: int) -> float:
    """The share of its time that the machine needs for this amount alone; the median over rounds."""
    own = pair.found.timed[pair.contestant, pair.batch].by_round
    return float(np.median(amount / pair.found.gauges[:, gauge] / own))


def _bound_by_starts(pair: _Pair) -> tuple[str, str] | None:
    tally = pair.found.tallies.get((pair.contestant, pair.batch)) if _is_eager(pair) else None
    if tally is None or (share := _share_of_time(pair, tally.operators, 2)) < 0.5:
        return None
    text = f"starting its {tally.operators} operators alone takes {share:.0%} of its time here"
    return text, "Fewer, larger operators: a larger batch, or --backend compile,onnx."


def _bound_alone(pair: _Pair) -> tuple[str, str] | None:
    largest = max(batch for one, batch in pair.found.timed if one == pair.contestant)
    per_image = [pair.found.timed[pair.contestant, batch].median.value / batch for batch in (pair.batch, largest)]
    if per_image[0] < 2 * per_image[1]:
        return None
    times = per_image[0] / per_image[1]
    text = (
        f"an image takes {times:.2g} times as long as in batches of {largest}: what binds does not grow with the work"
    )
    return text, "Collect images into batches if you can, or try --backend compile,onnx."


def _bound_by_memory(pair: _Pair) -> tuple[str, str] | None:
    tally = pair.found.tallies.get((pair.contestant, pair.batch)) if _is_eager(pair) else None
    adds = pair.found.adds.get(pair.contestant)
    if tally is None or adds is None:
        return None
    moving, computing = _share_of_time(pair, tally.traffic, 1), _share_of_time(pair, adds * pair.batch, 0)
    if moving < 0.5 or moving < computing:
        return None
    text = (
        f"its operators move {tally.traffic / 1e6:.3g} MB, for which memory alone needs {moving:.0%} of its time (its "
        f"multiply-adds need {computing:.0%})"
    )
    return text, "Fused operators move less: try --backend compile,onnx."


def _bound_elsewhere(pair: _Pair) -> tuple[str, str] | None:
    own, first = (pair.found.tallies.get((one, pair.batch)) for one in (pair.contestant, 0))
    eager = _is_eager(pair) and pair.found.contestants[0].eager
    if own is None or first is None or not eager:
        return None
    before, after = pair.milliseconds
    products = before * first.products, after * own.products
    others = before - products[0], after - products[1]
    text = (
        f"products, whose work fell, took {_in_words(products[0])} and take {_in_words(products[1])}, while all other "
        f"operators took {_in_words(others[0])} and take {_in_words(others[1])}"
    )
    grew = others[1] > (pair.work or 0) * others[0] * (1 + MARGIN)
    return text, (
        "Look at what is no product: norms, activations, sorting and copying."
        if grew
        else "Smaller products run less well."
    )


def _is_eager(pair: _Pair) -> bool:
    return pair.found.contestants[pair.contestant].eager


def _claim_logits(found: BenchFigures) -> Iterator[Claim]:
    if not found.apart:
        return
    worst = max(found.apart, key=found.apart.__getitem__)
    apart, name = found.apart[worst], found.names[worst]
    same = apart <= _APART
    headline = (
        "Every backend gives the module's own logits."
        if same
        else f"{name} gives other logits than the module: its times are those of another model."
    )
    yield Claim(
        name="same-logits",
        statement="Every backend gives the logits of the module itself",
        verdict=Verdict.HOLDS if same else Verdict.FAILS,
        figure=f"largest difference {apart:.1e} of the largest logit ({name})",
        rule=f"Holds if no logit of the same batch differs by more than {_APART:g} of the largest.",
        reference="",
        advice="" if same else "Do not use this file; report it with the name of the model.",
        evidence="logits/logit_difference",
        weight=1.0 if not same else 0.1,
        headline=headline,
        kind=ClaimKind.GOOD if same else ClaimKind.PROBLEM,
    )


def _claim_reading(found: BenchFigures) -> Iterator[Claim]:
    """Whether the pictures take longer than the fastest contestant, at the largest batch size."""
    batch = max((batch for _, batch in found.reading), default=0)
    passes = {one: timed for (one, at), timed in found.timed.items() if at == batch}
    if not batch or not passes:
        return
    fastest = min(passes, key=lambda one: passes[one].median.value)
    reading = next(values for (_, at), values in found.reading.items() if at == batch)
    model = passes[fastest].median
    slower, faster = min(reading) > model.high, max(reading) < model.low
    verdict = Verdict.HOLDS if slower else Verdict.FAILS if faster else Verdict.UNDECIDED
    low, middle, high = (_in_words(1e3 * float(value)) for value in np.quantile(reading, (0, 0.5, 1)))
    said = {
        Verdict.HOLDS: f"Reading {batch} pictures takes longer than {found.names[fastest]} does, and binds.",
        Verdict.FAILS: f"Reading {batch} pictures takes less time than {found.names[fastest]} does.",
        Verdict.UNDECIDED: f"Reading {batch} pictures takes about as long as {found.names[fastest]} does.",
    }
    yield Claim(
        name="pictures-bind",
        statement="Reading the pictures takes longer than the fastest model",
        verdict=verdict,
        figure=f"{middle} to read {batch} pictures ({low} to {high} in {len(reading)} batches); "
        f"{_in_words(1e3 * model.value)} for the pass",
        rule="Holds if every batch took longer to read than the upper end of the pass's 95 % interval, fails if each "
        "took less than the lower end.",
        reference="",
        advice="A faster model changes little: store smaller pictures, or read them with more processes."
        if slower
        else "",
        evidence="reading/reading_time",
        weight=0.9 if slower else 0.2,
        headline=said[verdict],
        kind=ClaimKind.LOOK if not faster else ClaimKind.GOOD,
    )
