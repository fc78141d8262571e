"""The jobs of the bills world: questions with one right answer, made from draws, of every level from 1 to 4.

Law: a question and its answer are a function of the draws alone. What training may ask, held-out evaluation never
asks: it has words of its own, and of the questions about numbers those whose checksum says so.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np

LEVELS = 4
POSITIONS = ("first", "second", "third", "fourth", "fifth", "last")
SKIP = "skip"
"""What refuses a job; no answer is made of it."""

_WORDS = """
apple river stone bread chair green horse light money night ocean paper queen radio snake table uncle voice water year
bird book boat bell cake coat cloud clock door drum eagle farm field fire fish flag floor flower fruit game gate glass
goat gold grass hand hat hill home house ice iron jacket king kite knife lake lamp leaf lion map milk moon mouse nail
nest oil orange oven pen piano plate rain ring road roof rose salt sand school sea ship shoe snow soap sock song star
storm sugar sun tail tent tooth
"""
_OTHER_WORDS = """
earth garden heart honey island letter lemon mirror nurse onion paint pond robot rope sail seed sheep silver spoon
tiger tower train tree wall watch wheel wind window wing wolf wood wool
"""
WORDS = tuple(_WORDS.split())
"""What jobs are about where agents learn."""
HELD_OUT_WORDS = tuple(_OTHER_WORDS.split())
"""What jobs are about in held-out evaluation."""
_HELD_OUT_SHARE = 4
"""One in so many questions about numbers is held out."""

Question = tuple[str, str]
"""What is asked, and the right answer."""


class Draws:
    """Whole numbers from one generator, fetched by the dozen: a call for each would be most of a step's time."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._uniform = _stream(generator)

    def fraction(self) -> float:
        """Uniform in [0, 1)."""
        return next(self._uniform)

    def below(self, bound: int) -> int:
        """Uniform among 0, ..., bound - 1."""
        return int(next(self._uniform) * bound)

    def between(self, low: int, high: int) -> int:
        """Uniform among low, ..., high."""
        return low + int(next(self._uniform) * (high - low + 1))

    def sample(self, items: Sequence[str], count: int) -> list[str]:
        """So many different items, in random order."""
        taken: dict[str, None] = {}
        while len(taken) < count:
            taken[items[self.below(len(items))]] = None
        return list(taken)

    def numbers(self, low: int, high: int, count: int) -> list[int]:
        """So many different numbers from low to high, in random order."""
        taken: dict[int, None] = {}
        while len(taken) < count:
            taken[self.between(low, high)] = None
        return list(taken)


def _stream(generator: np.random.Generator) -> Iterator[float]:
    while True:
        yield from generator.random(32).tolist()


class Job(NamedTuple):
    """Work that is offered."""

    kind: str
    level: int
    """1 to 4; the higher, the harder."""
    pay: int
    """Energy for the right answer."""
    question: str
    answer: str


def offer(draws: Draws, level: int, pay: int, held_out: bool) -> Job:
    """A job of this level, of any kind that has it, that belongs to training or to held-out evaluation."""
    kinds = _BY_LEVEL[level - 1]
    kind = kinds[draws.below(len(kinds))]
    if kind in ABOUT_WORDS:
        question, answer = ABOUT_WORDS[kind](level, draws, HELD_OUT_WORDS if held_out else WORDS)
    else:
        question, answer = ABOUT_NUMBERS[kind](level, draws)
        while is_held_out(question) != held_out:
            question, answer = ABOUT_NUMBERS[kind](level, draws)
    return Job(kind, level, pay, question, answer)


def is_held_out(question: str) -> bool:
    """Whether a question about numbers is one of those that nobody learns from."""
    return crc32(question.encode()) % _HELD_OUT_SHARE == 0


# --- about words ---


def _copy(level: int, draws: Draws, words: Sequence[str]) -> Question:
    text = " ".join(draws.sample(words, (1, 2, 3, 5)[level - 1]))
    return f"Say the word{'s' * (level > 1)}: {text}", text


def _pick(level: int, draws: Draws, words: Sequence[str]) -> Question:
    listed = draws.sample(words, (2, 3, 4, 6)[level - 1])
    place = draws.below(len(listed))
    name = POSITIONS[-1] if place == len(listed) - 1 else POSITIONS[place]
    return f"What is the {name} word: {' '.join(listed)}", listed[place]


def _letter(level: int, draws: Draws, words: Sequence[str]) -> Question:
    [word] = draws.sample(words, 1)
    name, place = (("first", 0), ("last", -1), ("second", 1), ("third", 2))[level - 1]
    return f"What is the {name} letter of: {word}", word[place]


def _member(level: int, draws: Draws, words: Sequence[str]) -> Question:
    count = (2, 3, 5, 8)[level - 1]
    *listed, other = draws.sample(words, count + 1)
    inside = draws.below(2) == 1
    asked = listed[draws.below(count)] if inside else other
    return f"Is {asked} in this list, yes or no: {' '.join(listed)}", "yes" if inside else "no"


def _odd(level: int, draws: Draws, words: Sequence[str]) -> Question:
    odd, one, *others = draws.sample(words, 3)
    twice = [one] * level if level < 4 else [one, one, *others, *others]
    place = draws.below(len(twice) + 1)
    return f"Which word is there only once: {' '.join([*twice[:place], odd, *twice[place:]])}", odd


def _letters(level: int, draws: Draws, words: Sequence[str]) -> Question:
    [word] = draws.sample(words, 1)
    if level < 4:
        return f"How many letters are in: {word}", str(len(word))
    letter = word[draws.below(len(word))]
    return f"How many {letter} are in: {word} {word}", str(2 * word.count(letter))


def _items(level: int, draws: Draws, words: Sequence[str]) -> Question:
    if level < 4:
        listed = draws.sample(words, draws.between(1, 3 * level - 2))
        return f"How many words are in: {' '.join(listed)}", str(len(listed))
    word, *others = draws.sample(words, 3)
    listed = [word if draws.below(2) else others[draws.below(2)] for _ in range(7)]
    return f"How many times is {word} in: {' '.join(listed)}", str(listed.count(word))


def _reverse(level: int, draws: Draws, words: Sequence[str]) -> Question:
    if level < 4:
        listed = draws.sample(words, level)
        return f"Say these words backwards: {' '.join(listed)}", " ".join(reversed(listed))
    [word] = draws.sample(words, 1)
    return f"Spell this word backwards: {word}", word[::-1]


# --- about numbers ---


def _sum(level: int, draws: Draws) -> Question:
    if level < 3:
        one, other = (draws.between(1, (5, 10)[level - 1]) for _ in range(2))
        return f"What is {one} + {other}?", str(one + other)
    low, high = ((11, 49), (101, 499))[level - 3]
    one, other = (draws.between(low, high) for _ in range(2))
    if draws.below(2):
        return f"What is {one} + {other}?", str(one + other)
    return f"What is {one + other} - {one}?", str(other)


def _compare(level: int, draws: Draws) -> Question:
    count, high = ((2, 9), (2, 99), (3, 99), (5, 999))[level - 1]
    listed = draws.numbers(0, high, count)
    best, name = ((max, "largest"), (min, "smallest"))[draws.below(2)]
    return f"Which number is the {name}: {' '.join(map(str, listed))}", str(best(listed))


def _next(level: int, draws: Draws) -> Question:
    if level == 4:
        factor, start = draws.between(2, 3), draws.between(1, 12)
        listed = [start * factor**place for place in range(4)]
    else:
        step = (1, (2, 5, 10)[draws.below(3)], draws.between(3, 9))[level - 1]
        start = draws.between(1, 40)
        listed = [start + step * place for place in range(4)]
        if level == 3 and draws.below(2):
            listed.reverse()
    return f"What number comes next: {' '.join(map(str, listed[:3]))}", str(listed[3])


def _sort(level: int, draws: Draws) -> Question:
    count, high = ((2, 9), (2, 99), (4, 9), (3, 99))[level - 1]
    listed = draws.numbers(0, high, count)
    return f"Sort these numbers: {' '.join(map(str, listed))}", " ".join(map(str, sorted(listed)))


ABOUT_WORDS: dict[str, Callable[[int, Draws, Sequence[str]], Question]] = {
    "copy": _copy,
    "pick": _pick,
    "letter": _letter,
    "member": _member,
    "odd": _odd,
    "letters": _letters,
    "items": _items,
    "reverse": _reverse,
}
ABOUT_NUMBERS: dict[str, Callable[[int, Draws], Question]] = {
    "sum": _sum,
    "compare": _compare,
    "next": _next,
    "sort": _sort,
}
FIRST_LEVEL = {"copy": 1, "pick": 1, "letter": 1, "member": 1, "sum": 1, "compare": 1, "next": 1} | {
    "odd": 2,
    "letters": 2,
    "items": 2,
    "reverse": 2,
    "sort": 2,
}
"""Every kind of job, and the level from which it is offered."""

_BY_LEVEL = [[kind for kind, first in FIRST_LEVEL.items() if first <= level] for level in range(1, LEVELS + 1)]
