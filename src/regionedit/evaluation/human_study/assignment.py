"""Assigns pictures to raters, orders and sides: random, balanced, and the same for the same seed.

A *unit* is a case with a *system set*, the systems that are shown together: two of them, or all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np

Unit = tuple[str, tuple[str, ...]]
SWEEPS, MOST_SWEEPS = 8, 64


@dataclass(frozen=True)
class Trial:
    """One page of one rater's form; forms and pages are numbered from 1, the systems stand from left to right.

    The name is unique among all studies and does not reveal the systems. `repeat_of` is empty, or names the earlier
    trial whose pictures are shown again in reverse order.
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
    system_sets: Sequence[tuple[str, ...]],
    raters: int,
    trials: int,
    repeats: int,
    rng: np.random.Generator,
) -> list[Trial]:
    """All trials, form by form; their names begin with `study`.

    Each rater gets `trials` different units. `repeats` of them, from the first third of the form, are shown again in
    the last third.

    Raises:
        ValueError: there are more trials than units, or more repeats than a third of the trials.
    """
    if not 1 <= trials <= len(cases) * len(system_sets):
        raise ValueError(f"trials: {trials} given, 1 to {len(cases) * len(system_sets)} are possible")
    if not 0 <= repeats <= trials // 3:
        raise ValueError(f"repeats: {repeats} given, 0 to {trials // 3} (a third of the trials) are possible")
    hands = deal(cases, system_sets, raters, trials, rng)
    shown = iter(choose_sides([(rater, unit) for rater, hand in enumerate(hands) for unit in hand], rng))
    made = []
    for rater, hand in enumerate(hands, 1):
        made += _form(study, rater, [(case, next(shown)) for case, _ in hand], repeats, rng)
    return made


def deal(
    cases: Sequence[str], system_sets: Sequence[tuple[str, ...]], raters: int, trials: int, rng: np.random.Generator
) -> list[list[Unit]]:
    """The units of every rater; counts differ by at most one between units, and between cases. No rater sees one twice.

    The deck cycles through the cases and, at the same time, through the system sets, so that every prefix is balanced.
    After each common period the sets shift by one, so that every unit occurs once (a Latin rectangle). The deck is
    dealt cyclically.
    """
    order, sequence = rng.permutation(len(cases)), rng.permutation(len(system_sets))
    period = lcm(len(cases), len(system_sets))
    deck = [
        (cases[order[card % len(cases)]], system_sets[sequence[(card + card // period) % len(system_sets)]])
        for card in range(len(cases) * len(system_sets))
    ]
    hands = [[deck[(rater * trials + i) % len(deck)] for i in range(trials)] for rater in range(raters)]
    return [hands[i] for i in rng.permutation(raters)]


def choose_sides(trials: Sequence[tuple[int, Unit]], rng: np.random.Generator) -> list[tuple[str, ...]]:
    """The order of the systems in every trial (rater, unit); each system is at each position about equally often.

    Starting from random orders, each trial in turn takes the order that best balances how often its systems are at each
    position in the whole study, in the rater's form and for its unit (a linear assignment); ties are broken at random.
    """
    from scipy.optimize import linear_sum_assignment

    system_sets = [system_set for _, (_, system_set) in trials]
    systems = sorted({name for system_set in system_sets for name in system_set})
    width = len(system_sets[0])
    counts: dict[object, np.ndarray] = defaultdict(lambda: np.zeros((len(systems), width), np.int64))
    groups = [(counts["study"], counts[rater], counts[unit]) for rater, unit in trials]
    rows = [np.array([systems.index(name) for name in system_set]) for system_set in system_sets]
    places = [rng.permutation(width) for _ in trials]

    def count(trial: int, number: int) -> None:
        for group in groups[trial]:
            group[rows[trial], places[trial]] += number

    for trial in range(len(trials)):
        count(trial, 1)
    for sweep in range(MOST_SWEEPS):
        if sweep >= SWEEPS and (np.ptp(counts["study"], axis=1) <= 1).all():
            break
        # In the second half the whole study has the largest weight, because a fair comparison depends on it. If it is
        # not balanced by then, it counts alone: opposite imbalances move at random among equal costs until they meet.
        weights = (1, 1, 1) if sweep < SWEEPS // 2 else (4, 1, 1) if sweep < SWEEPS else (1, 0, 0)
        for trial in rng.permutation(len(trials)):
            count(trial, -1)
            cost = sum(weight * group[rows[trial]] for weight, group in zip(weights, groups[trial], strict=True))
            places[trial] = linear_sum_assignment(cost + rng.uniform(0, 0.1, cost.shape))[1]
            count(trial, 1)
    return [
        tuple(system_set[k] for k in np.argsort(place)) for system_set, place in zip(system_sets, places, strict=True)
    ]


def _form(study: str, rater: int, shown: list[Unit], repeats: int, rng: np.random.Generator) -> list[Trial]:
    """One rater's trials in random order, repeats in the last third."""

    def name(number: int) -> str:
        return f"{study}-{rater:02d}-{number:03d}"

    order = [(*shown[i], "") for i in rng.permutation(len(shown))]
    third = len(order) // 3
    again = rng.choice(third, repeats, replace=False) if repeats else []
    pages, late = order[: len(order) - third], order[len(order) - third :]
    late += [(case, systems[::-1], name(place + 1)) for place in again for case, systems, _ in [order[place]]]
    pages += [late[i] for i in rng.permutation(len(late))]
    return [Trial(name(number), rater, number, *page) for number, page in enumerate(pages, 1)]
