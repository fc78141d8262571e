"""News: articles come in one by one, and each forecast of the return that followed is paid by its squared error.

A step is: the agent reads one article and says a word that stands for a return; it earns energy by how much smaller
its squared error is than that of forecasting zero, and pays its upkeep. Forecasting zero starves slowly, guessing dies
soon, skill lives.

Law: what an agent is shown is the article alone: no date, no return, no energy, nothing that was known only later.
On the same articles a life that survives has a higher score than one that dies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel

from telemetry.records import EndReason
from telemetry.seeds import rng
from workers.environment import Observation, Outcome, Policy
from workers.environments import news_report
from workers.environments.news_settings import SYNTHETIC, NewsSettings
from workers.environments.news_split import load
from workers.environments.news_synthetic import oracle

WORDS = {"drop": -2, "slip": -1, "flat": 0, "rise": 1, "jump": 2}
"""Answers, and how many grades each forecasts."""

_OVER = "No more news."
_HALF = 16
"""Characters of half a bar in the picture; a standard deviation has four."""


@dataclass(slots=True)
class _Life:
    """What a life will read, and what became of it so far."""

    places: list[int]
    """Articles of the life, in order of time."""
    forecasts: list[float]
    energy: float
    gained: float = 0.0
    """Squared error saved against forecasting zero, so far."""
    end: EndReason | None = None


class News:
    """The forecasting world. A fresh instance stands at the beginning of the life with seed 0."""

    name: ClassVar[str] = "news-v1"
    Settings: ClassVar[type[BaseModel]] = NewsSettings
    HELDOUT: ClassVar[Mapping[str, Any]] = {"split": "heldout"}
    actions: tuple[str, ...] = tuple(WORDS)
    rules: str = "Forecast the share price after the news. Say drop, slip, flat, rise or jump."
    references: Mapping[str, Policy] = {"always-flat": lambda observation: "flat"}
    """Forecasting zero; with synthetic data also `oracle`, the best forecast that the text allows."""

    def __init__(self, settings: NewsSettings) -> None:
        """Raises UsageError when the data is not as it must be."""
        self._settings = settings
        self.articles = load(settings)
        """What is read, in order of time."""
        self.forecasts = {word: grades * settings.grade for word, grades in WORDS.items()}
        """The return that each answer forecasts, in standard deviations."""
        if settings.data == SYNTHETIC:
            best = oracle(settings.signal, self.forecasts)
            self.references = {**self.references, "oracle": lambda observation: best(observation.text)}
        self.reset(0)

    @property
    def horizon(self) -> int:
        return self._settings.horizon

    def reset(self, seed: int) -> Observation:
        """Begins the life of a seed: its articles are drawn from the split without repetition, and read in order."""
        drawn = rng(seed, "news").choice(len(self.articles.ids), self._settings.horizon, replace=False)
        self._life = _Life(sorted(drawn.tolist()), [], self._settings.start_energy)
        return self._observe()

    def step(self, action: str) -> Outcome:
        """Lives one step. Raises ValueError for a word that is no action, RuntimeError when the life has ended."""
        life, settings = self._life, self._settings
        forecast = self.forecasts.get(action)
        if forecast is None:
            raise ValueError(f"{action!r} is not one of {', '.join(self.actions)}")
        if life.end is not None:
            raise RuntimeError("the life has ended; reset() begins the next one")
        actual = self.articles.counted[life.places[len(life.forecasts)]]
        life.forecasts.append(forecast)
        life.gained += forecast * (2 * actual - forecast)  # actual² - (forecast - actual)²
        steps, cause = len(life.forecasts), ""
        life.energy = max(0.0, settings.start_energy + settings.scale * life.gained - settings.upkeep * steps)
        if not life.energy:
            life.end, cause = EndReason.DIED, "mispriced" if life.gained < 0 else "starved"
        elif steps == settings.horizon:
            life.end = EndReason.SURVIVED
        return Outcome(self._observe(), life.end, cause)

    def state(self) -> Mapping[str, Any]:
        """Hidden state: the article read last, what it returned and what was forecast, null before the first."""
        life = self._life
        steps = len(life.forecasts)
        place = life.places[steps - 1] if steps else None
        return {
            "step": steps,
            "energy": life.energy,
            "article": None if place is None else self.articles.ids[place],
            "actual": None if place is None else self.articles.returns[place],
            "forecast": life.forecasts[-1] if steps else None,
        }

    def result(self) -> Mapping[str, Any]:
        """Forecasts and returns of the life's articles, in standard deviations of the training returns.

        `score` is the negative mean squared error over all of them, with returns winsorised. An article that a dead
        life did not read counts as forecast 0: as good as `flat`, which is what the dead could have gone on saying.
        """
        life, settings, articles = self._life, self._settings, self.articles
        unread = settings.horizon - len(life.forecasts)
        base = sum(self.articles.counted[place] ** 2 for place in life.places)
        return {
            "articles": [articles.ids[place] for place in life.places],
            "days": [articles.days[place] for place in life.places],
            "predicted": [*life.forecasts, *[0.0] * unread],
            "actual": [articles.returns[place] for place in life.places],
            "read": len(life.forecasts),
            "score": (life.gained - base) / settings.horizon,
            "winsor": settings.winsor,
            "deviation": articles.deviation,
            "return_days": settings.return_days,
        }

    @staticmethod
    def report(results: list[Mapping[str, Any]]) -> Mapping[str, tuple[float, float, float]]:
        """Skill, rank correlation and long-short portfolio of many lives; see `news_report.report`."""
        return news_report.report(results)

    @staticmethod
    def draw(state: Mapping[str, Any]) -> str:
        """A recorded state as two bars around zero, `#` for each quarter of a standard deviation."""
        title = f"step {state['step']}  energy {state['energy']:.2f}"
        if state["article"] is None:
            return title
        bars = [f"{name:8} {_bar(state[name])} {state[name]:+.2f}" for name in ("forecast", "actual")]
        return "\n".join([f"{title}  article {state['article']}", *bars])

    def _observe(self) -> Observation:
        life = self._life
        if len(life.forecasts) == self._settings.horizon:
            return Observation(_OVER, self.actions, life.energy)
        return Observation(self.articles.texts[life.places[len(life.forecasts)]], self.actions, life.energy)


def _bar(value: float) -> str:
    length = min(_HALF, round(abs(value) * 4))
    below, above = (length, 0) if value < 0 else (0, length)
    return f"{'#' * below:>{_HALF}}|{'#' * above:<{_HALF}}"
