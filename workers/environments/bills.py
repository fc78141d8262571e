"""Bills: an agent pays for its own thinking, earns by small jobs, and dies bankrupt.

A step is: the agent is offered a job and answers in free text, or refuses; it pays for every token it read and said;
the right answer is paid, a wrong one is fined; the rent is due. Jobs get harder, and pay more, as life goes on.

Law: all offers are fixed by the seed before the first step, so two agents with the same seed are offered the same
jobs, whatever they do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel

from telemetry.records import EndReason
from telemetry.seeds import rng
from workers.environment import Observation, Outcome, Policy
from workers.environments import bills_report, bills_text
from workers.environments.bills_jobs import LEVELS, Draws, Job, offer
from workers.environments.bills_settings import BillsSettings
from workers.environments.bills_text import Offer, is_right, refuses, render, tokens

BANKRUPT = "bankrupt"
SOLVED, WRONG, SKIPPED = "solved", "wrong", "skipped"
"""What became of an offer."""


@dataclass(slots=True)
class _Life:
    """Everything that changes while a life goes on."""

    draws: Draws
    energy: float
    job: Job
    """What is offered now, ..."""
    text: str = ""
    """... and how the agent is told of it."""
    step: int = 0
    end: EndReason | None = None
    last: str = ""
    """What became of the last offer, ..."""
    change: float = 0.0
    """... and what it earned, less the tokens, before rent."""
    solved: int = 0
    """Offers, so far."""
    wrong: int = 0
    earned: float = 0.0
    """Energy from right answers; this and all sums below are positive."""
    lost: float = 0.0
    """By fines and refusals."""
    spent: float = 0.0
    """For tokens."""
    rent: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Bills:
    """The world of bills. A fresh instance stands at the beginning of the life with seed 0."""

    name: ClassVar[str] = "bills-v1"
    Settings: ClassVar[type[BaseModel]] = BillsSettings
    HELDOUT: ClassVar[Mapping[str, Any]] = {"split": "heldout"}
    references: ClassVar[Mapping[str, Policy]] = {
        "random": lambda observation: bills_text.random_answer(observation.text)
    }
    """Random play refuses, says a number or says a word of the offer: random letters would always be wrong."""
    actions: tuple[str, ...] = ()
    rules: str = "You live from small jobs. Words cost energy and so do mistakes. Say only the answer, or say skip."

    def __init__(self, settings: BillsSettings) -> None:
        self._settings = settings
        self.reset(0)

    @property
    def horizon(self) -> int:
        return self._settings.horizon

    def reset(self, seed: int) -> Observation:
        """Begins the life of a seed."""
        self._life = self._born(seed)
        self._paid = (0, 0)
        return self._observe()

    def pay(self, prompt_tokens: int, completion_tokens: int) -> None:
        """What the coming step's answer took. A player without tokens, say a person, pays by the length of texts."""
        self._paid = (prompt_tokens, completion_tokens)

    def step(self, action: str) -> Outcome:
        """Lives one step; any text is an answer. Raises RuntimeError when the life has ended."""
        life, settings = self._life, self._settings
        if life.end is not None:
            raise RuntimeError("the life has ended; reset() begins the next one")
        life.change = self._judge(action) - self._charge(action)
        life.rent += settings.rent
        life.energy = max(0.0, life.energy + life.change - settings.rent)
        life.step += 1
        if not life.energy:
            life.end = EndReason.DIED
        elif life.step == settings.horizon:
            life.end = EndReason.SURVIVED
        life.job = self._offer(life.draws, life.step)
        return Outcome(self._observe(), life.end, BANKRUPT if life.end is EndReason.DIED else "")

    def state(self) -> Mapping[str, Any]:
        """Hidden state: the offer that comes next, `[kind, level, pay, question, answer]`; what became of the last one
        and what it earned before rent; the tokens read and said so far."""
        life = self._life
        return {
            "step": life.step,
            "energy": life.energy,
            "offer": list(life.job),
            "last": life.last,
            "change": life.change,
            "tokens": [life.prompt_tokens, life.completion_tokens],
        }

    def result(self) -> Mapping[str, Any]:
        """Accounts of the life. `score` is its profit: earned, less fines, refusals and tokens, before rent."""
        life = self._life
        return {
            "score": life.earned - life.lost - life.spent,
            "earned": life.earned,
            "lost": life.lost,
            "spent_on_tokens": life.spent,
            "spent_on_rent": life.rent,
            "offers": life.step,
            "taken": life.solved + life.wrong,
            "solved": life.solved,
            "prompt_tokens": life.prompt_tokens,
            "completion_tokens": life.completion_tokens,
        }

    @staticmethod
    def report(results: Sequence[Mapping[str, Any]]) -> Mapping[str, tuple[float, float, float]]:
        """What was taken, solved and said in many lives; see `bills_report.report`."""
        return bills_report.report(results)

    @staticmethod
    def heuristic(observation: Observation) -> str:
        """Sensible play from the observation's text alone."""
        return bills_text.sensible_answer(bills_text.parse(observation.text))

    @staticmethod
    def draw(state: Mapping[str, Any]) -> str:
        """The account and the offer of a recorded state, with the right answer."""
        last = f"{state['last']} {state['change']:+.2f}" if state["last"] else "nothing yet"
        kind, level, pay, question, answer = state["offer"]
        return (
            f"step {state['step']}  energy {state['energy']:.2f}  last {last}\n"
            f"{kind}, level {level}, pays {pay}: {question}  [{answer}]"
        )

    def _judge(self, said: str) -> float:
        """Pays or fines what was said, and returns it."""
        life, settings = self._life, self._settings
        if refuses(said):
            life.last, loss = SKIPPED, settings.skip_cost
        elif is_right(said, life.job.answer):
            life.last = SOLVED
            life.solved += 1
            life.earned += life.job.pay
            return life.job.pay
        else:
            life.last, loss = WRONG, settings.fine * life.job.pay
            life.wrong += 1
        life.lost += loss
        return -loss

    def _charge(self, said: str) -> float:
        """Counts the tokens of the step, and returns their cost."""
        life, settings = self._life, self._settings
        read, spoken = self._paid
        self._paid = (0, 0)
        if not spoken:
            read, spoken = tokens(self.rules) + tokens(life.text), tokens(said)
        cost = read * settings.prompt_token + spoken * settings.completion_token
        life.prompt_tokens += read
        life.completion_tokens += spoken
        life.spent += cost
        return cost

    def _observe(self) -> Observation:
        life = self._life
        kind, level, pay, question, _ = life.job
        life.text = render(Offer(kind, level, pay, math.ceil(life.energy), question))
        return Observation(life.text, (), life.energy, self._settings.max_tokens)

    def _born(self, seed: int) -> _Life:
        draws = Draws(rng(seed, "bills"))
        return _Life(draws, self._settings.start_energy, self._offer(draws, 0))

    def _offer(self, draws: Draws, step: int) -> Job:
        """The offer of a step: its level lies up to one and a half beside the one that the step has on average."""
        settings = self._settings
        rise = (settings.last_level - settings.first_level) * step / max(1, settings.horizon - 1)
        level = math.floor(settings.first_level + rise + 2 * draws.fraction() - 0.5)
        level = min(LEVELS, max(1, level))
        pay = settings.pay + settings.pay_per_level * (level - 1) + draws.between(-1, 1)
        return offer(draws, level, max(1, pay), settings.split == "heldout")
