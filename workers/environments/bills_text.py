"""What an agent of the bills world reads and says: the offer as text, answers judged, and play from the text alone.

Law: `parse(render(offer)) == offer` for every offer, and the heuristic knows nothing but the text.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from telemetry.seeds import uniform
from workers.environments.bills_jobs import POSITIONS, SKIP

_TEXT = re.compile(
    r"\((?P<kind>\w+), level (?P<level>\d+), pays (?P<pay>\d+), energy (?P<energy>\d+)\) (?P<question>.+)"
)
_WORD = re.compile(r"[a-z0-9]+")
_SENTENCE_END = re.compile(r"[.!?\n]")
_REFUSALS = frozenset((SKIP, "refuse", "pass", "sorry"))
_RANDOM_NUMBERS = 20


class Offer(NamedTuple):
    """A job as the agent is told of it."""

    kind: str
    level: int
    pay: int
    energy: int
    """Energy left, rounded up."""
    question: str


def render(offer: Offer) -> str:
    """The observation text; the question stands last, next to the answer."""
    return f"({offer.kind}, level {offer.level}, pays {offer.pay}, energy {offer.energy}) {offer.question}"


def parse(text: str) -> Offer:
    """The offer that a text was rendered from. Raises ValueError for any other text."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"not an offer of this world: {text!r}")
    return Offer(match["kind"], int(match["level"]), int(match["pay"]), int(match["energy"]), match["question"])


def refuses(said: str) -> bool:
    """Whether an answer takes no job: it says `skip`, `refuse`, `pass` or `sorry`, or no word at all."""
    words = _words(said)
    return not words or not _REFUSALS.isdisjoint(words)


def is_right(said: str, answer: str) -> bool:
    """Whether the last words of the first sentence are the answer; only letters and digits count, of any case.

    So `The next number is 12.` says 12, and saying several answers in a sentence says the last of them.
    """
    words, right = _words(said), tuple(answer.split())
    return words[-len(right) :] == right


@lru_cache(maxsize=1024)
def _words(said: str) -> tuple[str, ...]:
    """Words and numbers of the first sentence, or line, that has any: who goes on talking pays for it, and no more."""
    sentences = (tuple(_WORD.findall(sentence)) for sentence in _SENTENCE_END.split(said.casefold()))
    return next(filter(None, sentences), ())


def tokens(text: str) -> int:
    """Tokens that a text is taken for where nobody counted them: one for every four characters, and one to end it."""
    return 1 + -(-len(text) // 4)


def sensible_answer(offer: Offer) -> str:
    """The right answer, as short as can be; refuses where even saying it costs more than it brings."""
    answer = solve(offer.kind, offer.question)
    return answer if len(answer.split()) < 2 * offer.pay else SKIP


def random_answer(text: str) -> str:
    """Refuses, says a number below 20, or says a word of the offer, one as likely as another; by the text alone."""
    draw = 3 * uniform("bills at random", text)
    if draw < 1:
        return SKIP
    if draw < 2:
        return str(int((draw - 1) * _RANDOM_NUMBERS))
    words = parse(text).question.split()
    return words[int((draw - 2) * len(words))]


def solve(kind: str, question: str) -> str:
    """The right answer to a question, worked out from its words."""
    head, _, listed = question.partition(": ")
    asked, words = head.split(), listed.split()
    match kind:
        case "copy":
            return listed
        case "pick":
            return _at(asked[3], words)
        case "letter":
            return _at(asked[3], listed)
        case "member":
            return "yes" if asked[1] in words else "no"
        case "odd":
            return next(word for word, count in Counter(words).items() if count == 1)
        case "letters":
            return str(len(listed) if asked[2] == "letters" else listed.count(asked[2]))
        case "items":
            return str(len(words) if asked[2] == "words" else words.count(asked[4]))
        case "reverse":
            return listed[::-1] if asked[0] == "Spell" else " ".join(reversed(words))
        case "sort":
            return " ".join(sorted(words, key=int))
        case "compare":
            return (max if asked[-1] == "largest" else min)(words, key=int)
        case "sum":
            one, sign, other = head.removeprefix("What is ").removesuffix("?").split()
            return str(int(one) + int(other) if sign == "+" else int(one) - int(other))
        case "next":
            first, second, third = map(int, words)
            step = third - second
            return str(third + step if second - first == step else third * third // second)
        case _:
            raise ValueError(f"not a kind of job: {kind!r}")


def _at(position: str, items: Sequence[str]) -> str:
    """The item that a word such as `second` or `last` names."""
    return items[-1] if position == POSITIONS[-1] else items[POSITIONS.index(position)]
