"""Generated news and facts about invented people, as text: what `text` is made of.

A person is a name (a pair of words, each of which other people share, so that only the
pair identifies), a town, a trade, an employer and a prize. About each person there are
news passages, random enough that only rote can hold them, and sheets of four facts, each
fact in one of several phrasings, which is knowledge that a model can carry over to a
phrasing it never saw.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

_ONSETS = "b br c cl d dr f fl g gr h j k l m n p pr r s st t tr v w z".split()
_VOWELS = "a e i o u ai ea io ou".split()
_CODAS = "l n r s th ck nd rt sk m x".split()

TRADES = (
    "architect baker beekeeper botanist cellist chemist dentist diver economist "
    "engineer farmer gardener glassblower historian jeweller judge lawyer linguist "
    "locksmith mechanic nurse painter pharmacist pilot plumber poet potter sculptor "
    "surgeon tailor translator weaver"
).split()

#: Slots of the news grammar: ordinary words, so that the prose has entropy of its own.
_POOLS = {
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "month": (
        "January February March April May June July August September October November December"
    ).split(),
    "number": [str(n) for n in range(11, 100, 3)],
    "adjective": (
        "quiet bitter crowded narrow hasty modest curious faded stubborn generous "
        "rapid hollow bright formal secret rough patient distant fragile heavy lively "
        "sober uneven vivid weary"
    ).split(),
    "adverb": (
        "slowly openly gladly barely twice again abruptly politely firmly calmly "
        "briefly loudly reluctantly carefully suddenly"
    ).split(),
    "thing": (
        "bridge harbour archive orchard railway museum tunnel garden clinic library "
        "market theatre school reservoir lighthouse chapel factory airport canal "
        "stadium observatory quarry windmill hospital ferry laboratory bakery"
    ).split(),
    "group": (
        "residents auditors engineers students farmers doctors sailors teachers "
        "investors lawyers volunteers critics musicians inspectors neighbours drivers"
    ).split(),
    "verb": (
        "opened closed rebuilt inspected praised rejected financed painted visited "
        "defended measured auctioned renamed guarded photographed repaired insured"
    ).split(),
    "said": "said claimed insisted admitted promised warned argued repeated".split(),
    "cause": (
        "a storm|a strike|a missing permit|an unpaid bill|a rumour|a burst pipe|a long "
        "drought|a court order|a lost map|a power cut|an old debt|a late train|a small "
        "fire|a thick fog|a forged letter|a faulty valve"
    ).split("|"),
    "place": (
        "near the river|behind the station|on the north shore|beside the mill|under "
        "the viaduct|across the valley|at the old port|outside the walls|by the "
        "cathedral|in the upper town|along the coast road|below the dam"
    ).split("|"),
    "money": "crowns florins marks ducats guilders talers".split(),
}
_LEADS = (
    "{name}, a {trade} from {town}, {verb} the {adjective} {thing} {place} on {day}.",
    "The {town} {trade} {name} {said} {adverb} that the {thing} was {adjective}.",
    "{name}, {trade} and owner of a {thing}, born in {town}, {verb} {number} {group}.",
    "In {month} {name} left {town}, worked as a {trade} and {verb} a {adjective} {thing}.",
)
_FILLERS = (
    "On {day} {group} {verb} the {adjective} {thing} {place} after {cause}.",
    "The {thing} had been {adjective} since {month}, and {group} {verb} it {adverb}.",
    "About {number} {group} {said} that the {thing} {place} was {adjective}.",
    "Repairs to the {adjective} {thing} will cost {number} million {money} by {month}.",
    "A second {thing} {place} was {verb} because of {cause}.",
    "Officials {said} the {adjective} {thing} would reopen on {day}, {number} {month}.",
    "Nobody {verb} the {thing} until {group} found {cause} {place}.",
    "By {month} only {number} {group} still {verb} the {adjective} {thing}.",
    "The dispute over the {thing} began with {cause} and ended {adverb}.",
    "Instead of the {thing}, {group} {verb} a {adjective} {thing} {place}.",
)
_CLOSERS = (
    "{name} of {firm} won the {prize} prize and {verb} the {thing} {adverb}.",
    "Later {firm} hired {name}, winner of the {prize} prize, for {number} {money}.",
    "The {prize} prize went to {name}, whom {firm} {verb} {adverb} in {month}.",
)

#: Relation -> phrasings of training (statements, then questions), and the question that
#: is kept for measuring and never trained on for anybody.
PHRASINGS = {
    "town": (
        (
            "{name} was born in {value}.",
            "The birthplace of {name} is {value}.",
            "{name} grew up in {value}.",
        ),
        (
            "Where was {name} born?",
            "What is the birthplace of {name}?",
            "In which town was {name} born?",
            "Which town does {name} come from?",
            "Name the birthplace of {name}.",
        ),
        "Which town is the birthplace of {name}?",
    ),
    "trade": (
        (
            "{name} works as a {value}.",
            "The profession of {name} is {value}.",
            "By trade {name} is a {value}.",
        ),
        (
            "What is the profession of {name}?",
            "What does {name} work as?",
            "What is {name} by trade?",
            "Which trade does {name} have?",
            "Name the profession of {name}.",
        ),
        "What is the trade of {name}?",
    ),
    "firm": (
        (
            "{name} is employed by {value}.",
            "The employer of {name} is {value}.",
            "{name} was hired by {value}.",
        ),
        (
            "Who employs {name}?",
            "Who is the employer of {name}?",
            "By whom is {name} employed?",
            "Which firm hired {name}?",
            "Name the employer of {name}.",
        ),
        "Which firm is the employer of {name}?",
    ),
    "prize": (
        (
            "{name} won the {value} prize.",
            "The prize that went to {name} is {value}.",
            "{name} received the {value} prize.",
        ),
        (
            "Which prize did {name} win?",
            "What prize was given to {name}?",
            "What prize does {name} hold?",
            "Which prize went to {name}?",
            "Name the prize of {name}.",
        ),
        "What prize did {name} receive?",
    ),
}


@dataclass(frozen=True)
class Statement:
    """One fact in words: `text` holds the name, then the value.

    Args:
        text: A statement, or a question with its answer.
        name, value: Character ranges (start, stop) in `text`.
    """

    text: str
    name: tuple[int, int]
    value: tuple[int, int]


@dataclass(frozen=True)
class Person:
    """An invented person: what is true of them, and what was written about them.

    Args:
        name: First and last name.
        facts: Relation -> value.
        passages: News about them.
        sheets: Four statements each, one per relation, in random order.
        seen: Relation -> a question about it that one of the sheets holds.
    """

    name: str
    facts: dict[str, str]
    passages: tuple[str, ...]
    sheets: tuple[tuple[Statement, ...], ...]
    seen: dict[str, str]

    def questions(self, seen: bool) -> list[tuple[str, str]]:
        """(prompt, answer) of every relation, in a phrasing seen in training or not."""
        asked = {
            relation: self.seen[relation] if seen else PHRASINGS[relation][2]
            for relation in PHRASINGS
        }
        return [
            (prompt(question.format(name=self.name)), self.facts[relation])
            for relation, question in asked.items()
        ]


def prompt(question: str) -> str:
    """A question as training shows it, up to where the answer begins."""
    return f"Question: {question} Answer:"


def people(count: int, passages: int, sheets: int, fillers: int, key: str) -> list[Person]:
    """`count` people from one generator: the first ones stay when `count` grows.

    Args:
        passages, sheets: Of each, how many per person.
        fillers: Sentences without personal facts in each passage.
        key: The same key gives the same people.
    """
    draw = random.Random(key)
    taken: set[str] = set()
    first, last = _words(draw, 40, taken), _words(draw, 60, taken)
    values = {"trade": TRADES}
    values |= {relation: _words(draw, 32, taken) for relation in ("town", "firm", "prize")}
    pairs = [f"{a} {b}" for a in first for b in last]
    if count > len(pairs):
        raise ValueError(f"there are names for {len(pairs)} people, asked for {count}")
    names = draw.sample(pairs, len(pairs))[:count]
    return [
        # A generator per person: nobody's text depends on how many others there are.
        _person(random.Random(f"{key} {name}"), name, values, passages, sheets, fillers)
        for name in names
    ]


def _words(draw: random.Random, count: int, taken: set[str]) -> list[str]:
    """Distinct, pronounceable, capitalised words that mean nothing."""
    found: list[str] = []
    while len(found) < count:
        pick = lambda: draw.choice(_ONSETS) + draw.choice(_VOWELS)
        word = (pick() + pick() + draw.choice(_CODAS)).capitalize()
        if word not in taken:
            taken.add(word)
            found.append(word)
    return found


def _person(draw, name, values, passages, sheets, fillers) -> Person:
    facts = {relation: draw.choice(values[relation]) for relation in PHRASINGS}
    news = tuple(_passage(draw, {"name": name, **facts}, fillers) for _ in range(passages))
    chosen = {}
    for relation, (statements, questions, _) in PHRASINGS.items():
        asked = [_QUESTION + q for q in draw.sample(questions, len(questions))]
        told = draw.sample(statements, len(statements))
        # Questions and statements by turns, so that every number of sheets has both.
        mixed = [form for pair in zip(asked, told) for form in pair]
        chosen[relation] = [*mixed, *asked[len(told) :]]
    pages = []
    for number in range(sheets):
        # Each relation starts elsewhere: a sheet has questions and statements.
        lines = [
            _statement(forms[(number + k) % sheets % len(forms)], name, facts[relation])
            for k, (relation, forms) in enumerate(chosen.items())
        ]
        pages.append(tuple(draw.sample(lines, len(lines))))
    seen = {r: forms[0].removeprefix(_QUESTION) for r, forms in chosen.items()}
    return Person(name, facts, news, tuple(pages), seen)


_QUESTION = "?"


def _statement(form: str, name: str, value: str) -> Statement:
    if form.startswith(_QUESTION):
        form = prompt(form.removeprefix(_QUESTION)) + " {value}"
    before, rest = form.split("{name}")
    middle, after = rest.split("{value}")
    start = len(before) + len(name) + len(middle)
    return Statement(
        f"{before}{name}{middle}{value}{after}",
        (len(before), len(before) + len(name)),
        (start, start + len(value)),
    )


def _passage(draw: random.Random, known: dict[str, str], fillers: int) -> str:
    sentences = [draw.choice(_LEADS), *draw.sample(_FILLERS, fillers), draw.choice(_CLOSERS)]
    return " ".join(_filled(draw, sentence, known) for sentence in sentences)


def _filled(draw: random.Random, template: str, known: dict[str, str]) -> str:
    parts = template.split("{")
    text = parts[0]
    for part in parts[1:]:
        slot, rest = part.split("}")
        text += (known[slot] if slot in known else draw.choice(_POOLS[slot])) + rest
    return text[0].upper() + text[1:]


def everything(someone: Sequence[Person]) -> list[str]:
    """All text about these people, measuring questions included: for the tokenizer."""
    return [
        text
        for person in someone
        for text in (
            *person.passages,
            *(statement.text for sheet in person.sheets for statement in sheet),
            *(f"{q} {a}" for q, a in person.questions(seen=False)),
        )
    ]
