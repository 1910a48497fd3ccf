"""Questions: what is asked, how much work the answer takes, the answer, and what of it is kept."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, final

from vitscope.engine.plan import Plan
from vitscope.engine.work.work import Amount
from vitscope.measurement.errors import UserError
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec
from vitscope.runs.store import RunFolder


@final
@dataclass(frozen=True)
class Answer:
    """A run, the files that lie beside it by name, and the questions whose kept parts it was made of."""

    run: Run
    beside: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    steps: tuple[Spec, ...] = ()


class AbstractQuestion(ABC):
    """A question that :func:`carry_out` answers.

    ``title`` is what it is called while it is answered; ``spec`` is its content, which addresses the run; ``total`` is
    the work in units of real cost, which ``counted`` names.
    """

    counted: ClassVar[str] = ""
    """What ``total`` counts, such as ``trials``; forward passes of one image if empty."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is called while it is answered."""

    @cached_property
    def spec(self) -> Spec:
        """What is asked, by its content."""
        return self.make_spec()

    @abstractmethod
    def make_spec(self) -> Spec:
        """What is asked: the verb, the model, the images and the settings that the answer depends on."""

    @property
    @abstractmethod
    def total(self) -> Amount:
        """How much there is to do."""

    @property
    def name(self) -> str:
        """What a folder for its run is named after: the model."""
        return str(self.spec.model["name"])

    @abstractmethod
    def kept(self, plan: Plan) -> Amount:
        """How much of ``total`` an interrupted attempt left in the plan's folder."""

    @abstractmethod
    def answer(self, plan: Plan) -> Answer:
        """The answer. Parts of it are kept in the plan's folder on the way; the run itself is not yet."""

    def conclude(self, run: Run) -> Run:
        """The run with what can be concluded from its numbers; as it is, unless a question knows more."""
        return run

    def make_unfinished(self, plan: Plan) -> Run | None:
        """What an interrupted attempt left in the plan's folder, as a run to look at; None if that is nothing."""
        return None

    def describe_kept(self, plan: Plan) -> str:
        """What an interrupted attempt left, in words."""
        done = self.kept(plan)
        if self.counted:
            return f"{done:.0f} of {self.total:.0f} {self.counted} are kept"
        return f"{done / max(self.total, 1):.0%} of the work is kept"


def carry_out(question: AbstractQuestion, plan: Plan) -> Run:
    """The run that answers the question; if the plan has a folder, it is whole in there when this returns.

    A folder that holds the answer already gives it at once. An interrupt keeps the finished parts, from which
    ``plan.resume`` goes on. Raises ``UserError`` if the folder holds another run, or is in use.
    """
    if plan.store is None:
        return question.conclude(question.answer(plan).run)
    with plan.held():
        held = _read_answer(question, plan.store, plan)
        if held is not None:
            return question.conclude(held)
        answer = question.answer(plan)
        run = question.conclude(answer.run)
        plan.store.write(run, answer.steps, answer.beside)
        return run


def _read_answer(question: AbstractQuestion, store: RunFolder, plan: Plan) -> Run | None:
    """The run of this question that the folder holds; ``UserError`` if it holds another one."""
    held, spec = store.read(), question.spec
    if held is None:
        if not plan.resume and store.parts(spec):
            plan.say(f"{store.url} holds a part of this very run; with --resume it would be used. Starting again.")
        return None
    if held.spec.address == spec.address:
        plan.say(f"{store.url} holds this very run already; nothing is measured again.")
        return held
    other = f"{held.spec.model.get('name')} on {held.spec.images.get('name')}"
    left = f" What is kept of this one stays in {store.url}/partial/{spec.address}." if store.parts(spec) else ""
    raise UserError(
        f"{store.url} holds another run ({other}, {held.spec.address[:8]}), and runs are never overwritten; "
        f"give another --out.{left}"
    )
