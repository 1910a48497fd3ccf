"""Questions: their content, how much work an answer takes, the answer, and what is saved of it."""

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
    """A run, the files stored beside it by name, and the questions from whose saved parts it was made."""

    run: Run
    beside: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    steps: tuple[Spec, ...] = ()


class AbstractQuestion(ABC):
    """A question that :func:`carry_out` answers.

    ``title`` is shown while it is answered; ``spec`` is its content, which addresses the run; ``total`` is the work in
    units of real cost, which ``counted`` names.
    """

    counted: ClassVar[str] = ""
    """What ``total`` counts, such as ``trials``; forward passes of one image if empty."""

    @property
    @abstractmethod
    def title(self) -> str:
        """The title shown while it is answered."""

    @cached_property
    def spec(self) -> Spec:
        """The content of the question."""
        return self.make_spec()

    @abstractmethod
    def make_spec(self) -> Spec:
        """The verb, the model, the images and the settings that the answer depends on."""

    @property
    @abstractmethod
    def total(self) -> Amount:
        """How much work there is."""

    @property
    def name(self) -> str:
        """The name for its run's folder: that of the model."""
        return str(self.spec.model["name"])

    @abstractmethod
    def kept_amount(self, plan: Plan) -> Amount:
        """How much of ``total`` an interrupted attempt left in the plan's folder."""

    @abstractmethod
    def answer(self, plan: Plan) -> Answer:
        """The answer. Finished parts are saved in the plan's folder on the way, but not yet the run itself."""

    def conclude(self, run: Run) -> Run:
        """The run with the conclusions from its numbers; unchanged unless a question draws any."""
        return run

    def make_unfinished(self, plan: Plan) -> Run | None:
        """What an interrupted attempt left in the plan's folder, as a run to look at; None if it left nothing."""
        return None

    def describe_kept(self, plan: Plan) -> str:
        """What an interrupted attempt left, in words."""
        done = self.kept_amount(plan)
        if self.counted:
            return f"{done:.0f} of {self.total:.0f} {self.counted} are saved"
        return f"{done / max(self.total, 1):.0%} of the work is saved"


def carry_out(question: AbstractQuestion, plan: Plan) -> Run:
    """Answer the question; if the plan has a folder, the complete run is there when this returns.

    A run that the folder already holds is returned at once. After an interrupt the finished parts remain, and
    ``plan.resume`` continues from them. Raises ``UserError`` if the folder holds another run, or is in use.
    """
    if plan.store is None:
        return question.conclude(question.answer(plan).run)
    with plan.hold():
        held = _read_answer(question, plan.store, plan)
        if held is not None:
            return question.conclude(held)
        answer = question.answer(plan)
        run = question.conclude(answer.run)
        plan.store.write(run, answer.steps, answer.beside)
        return run


def _read_answer(question: AbstractQuestion, store: RunFolder, plan: Plan) -> Run | None:
    """The question's run if the folder holds it; None if it holds no run; ``UserError`` if it holds another one."""
    held, spec = store.read(), question.spec
    if held is None:
        if not plan.resume and store.parts(spec):
            plan.say(f"{store.url} holds a part of this run; --resume would continue from it. Starting again.")
        return None
    if held.spec.address == spec.address:
        plan.say(f"{store.url} already holds this run; nothing is measured again.")
        return held
    other = f"{held.spec.model.get('name')} on {held.spec.images.get('name')}"
    left = f" Finished parts of this one stay in {store.url}/partial/{spec.address}." if store.parts(spec) else ""
    raise UserError(
        f"{store.url} holds another run ({other}, {held.spec.address[:8]}), and runs are never overwritten; "
        f"give another --out.{left}"
    )
