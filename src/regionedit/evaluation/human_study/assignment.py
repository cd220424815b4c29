"""Assigns pictures to raters, orders and sides: random, balanced, and the same for the same seed.

A *unit* is a case with a *company*, the systems that are shown together: two of them, or all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np

Unit = tuple[str, tuple[str, ...]]
SWEEPS = 8


@dataclass(frozen=True)
class Trial:
    """One page of one rater's form.

    Args:
        name: unique among all studies; does not reveal the systems.
        rater: number of the form, from 1.
        number: position in the form, from 1.
        case: the case's id.
        systems: from left to right.
        repeat_of: name of the earlier trial whose pictures are shown again in reverse order, or empty.
    """

    name: str
    rater: int
    number: int
    case: str
    systems: tuple[str, ...]
    repeat_of: str = ""


def assign(
    study: str,
    cases: Sequence[str],
    companies: Sequence[tuple[str, ...]],
    raters: int,
    trials: int,
    repeats: int,
    rng: np.random.Generator,
) -> list[Trial]:
    """All trials, form by form.

    Args:
        study: the beginning of every trial's name.
        companies: the systems that are shown together: all pairs, or one tuple with every system.
        trials: number for each rater, without repeats; at most one for each unit.
        repeats: number for each rater, at most a third of the trials; they are chosen from the first third of the form
            and shown again in the last.

    Raises:
        ValueError: there are more trials than units, or too many repeats.
    """
    if not 1 <= trials <= len(cases) * len(companies):
        raise ValueError(f"trials: {trials} given, 1 to {len(cases) * len(companies)} are possible")
    if not 0 <= repeats <= trials // 3:
        raise ValueError(f"repeats: {repeats} given, 0 to {trials // 3} (a third of the trials) are possible")
    hands = deal(cases, companies, raters, trials, rng)
    sides = choose_sides(hands, rng)
    return [
        trial
        for rater, (hand, orders) in enumerate(zip(hands, sides, strict=True), 1)
        for trial in _form(study, rater, [(case, o) for (case, _), o in zip(hand, orders, strict=True)], repeats, rng)
    ]


def deal(
    cases: Sequence[str], companies: Sequence[tuple[str, ...]], raters: int, trials: int, rng: np.random.Generator
) -> list[list[Unit]]:
    """The units of every rater; counts differ by at most one between units, and between cases. No rater sees one twice.

    The deck cycles through the cases and, at the same time, through the companies, so that every prefix is balanced.
    After each common period the companies shift by one, so that every unit occurs once (a Latin rectangle). The deck is
    dealt cyclically.
    """
    order, sequence = rng.permutation(len(cases)), rng.permutation(len(companies))
    period = lcm(len(cases), len(companies))
    deck = [
        (cases[order[card % len(cases)]], companies[sequence[(card + card // period) % len(companies)]])
        for card in range(len(cases) * len(companies))
    ]
    hands = [[deck[(rater * trials + i) % len(deck)] for i in range(trials)] for rater in range(raters)]
    return [hands[i] for i in rng.permutation(raters)]


def choose_sides(hands: Sequence[Sequence[Unit]], rng: np.random.Generator) -> list[list[tuple[str, ...]]]:
    """The order of the systems in every trial; each system is at each position about equally often.

    Starting from random orders, each trial in turn takes the order that best balances how often its systems are at each
    position in the whole study, in the rater's form and for its unit (a linear assignment); ties are broken at random.
    """
    from scipy.optimize import linear_sum_assignment

    trials = [(rater, unit) for rater, hand in enumerate(hands) for unit in hand]
    systems = {name: i for i, name in enumerate(sorted({name for _, (_, company) in trials for name in company}))}
    width = len(trials[0][1][1])
    rows = [np.array([systems[name] for name in unit[1]]) for _, unit in trials]
    counts: dict[object, np.ndarray] = defaultdict(lambda: np.zeros((len(systems), width), np.int64))
    groups = [(counts["study"], counts[rater], counts[unit]) for rater, unit in trials]
    places = [rng.permutation(width) for _ in trials]
    for row, place, group in zip(rows, places, groups, strict=True):
        for count in group:
            count[row, place] += 1
    for sweep in range(SWEEPS):
        # In the second half the whole study has the largest weight, because a fair comparison depends on it.
        weights = (1, 1, 1) if sweep < SWEEPS // 2 else (4, 1, 1)
        for i in rng.permutation(len(trials)):
            for count in groups[i]:
                count[rows[i], places[i]] -= 1
            cost = sum(weight * count[rows[i]] for weight, count in zip(weights, groups[i], strict=True))
            places[i] = linear_sum_assignment(cost + rng.uniform(0, 0.1, cost.shape))[1]
            for count in groups[i]:
                count[rows[i], places[i]] += 1
    shown = iter(tuple(unit[1][k] for k in np.argsort(place)) for (_, unit), place in zip(trials, places, strict=True))
    return [[next(shown) for _ in hand] for hand in hands]


def _form(
    study: str, rater: int, shown: list[tuple[str, tuple[str, ...]]], repeats: int, rng: np.random.Generator
) -> list[Trial]:
    """One rater's trials in random order, repeats in the last third."""
    main = [shown[i] for i in rng.permutation(len(shown))]
    third = len(main) // 3
    again = rng.choice(third, repeats, replace=False) if repeats else []
    tail = [(page, None) for page in main[len(main) - third :]] + [(main[i], i) for i in again]
    pages = [(page, None) for page in main[: len(main) - third]] + [tail[i] for i in rng.permutation(len(tail))]
    names = [f"{study}-{rater:02d}-{number:03d}" for number in range(1, len(pages) + 1)]
    return [
        Trial(
            name,
            rater,
            number,
            case,
            systems if first is None else systems[::-1],
            "" if first is None else names[first],
        )
        for number, (name, ((case, systems), first)) in enumerate(zip(names, pages, strict=True), 1)
    ]
