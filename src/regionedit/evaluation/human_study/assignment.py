"""Assigns pictures to raters, orders and sides: random, balanced, and the same for the same seed.

A *unit* is a case with a *system set*, the systems that are shown together: two of them, or all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np
from numpy.random import Generator

SystemSet = tuple[str, ...]
Unit = tuple[str, SystemSet]
SWEEPS, MOST_SWEEPS = 8, 64


@dataclass(frozen=True)
class Trial:
    """One page of one rater's form, its systems from left to right; `repeat_of` names the earlier trial, if any."""

    name: str
    rater: int
    number: int
    case: str
    systems: SystemSet
    repeat_of: str = ""


def assign(
    study: str, cases: list[str], system_sets: list[SystemSet], raters: int, trials: int, repeats: int, rng: Generator
) -> list[Trial]:
    """All trials, form by form, named `study`-rater-number. Each rater gets `trials` different units.

    Their counts differ by at most one between units, and between cases. `repeats` of them, from the first third of the
    form, are shown again in the last third.
    """
    if not 1 <= trials <= len(cases) * len(system_sets):
        raise ValueError(f"trials: {trials} given, 1 to {len(cases) * len(system_sets)} are possible")
    if not 0 <= repeats <= trials // 3:
        raise ValueError(f"repeats: {repeats} given, 0 to {trials // 3} (a third of the trials) are possible")
    # The deck cycles through the cases and, at the same time, through the system sets, so every prefix is balanced.
    # After each common period the sets shift by one, so that every unit occurs once (a Latin rectangle).
    order, sequence = rng.permutation(len(cases)), rng.permutation(len(system_sets))
    period = lcm(len(cases), len(system_sets))
    deck = [
        (cases[order[card % len(cases)]], system_sets[sequence[(card + card // period) % len(system_sets)]])
        for card in range(len(cases) * len(system_sets))
    ]
    hands = [[deck[(hand * trials + i) % len(deck)] for i in range(trials)] for hand in rng.permutation(raters)]
    shown = iter(choose_sides([(rater, unit) for rater, hand in enumerate(hands) for unit in hand], rng))
    made = []
    for rater, hand in enumerate(hands, 1):
        names = [f"{study}-{rater:02d}-{number:03d}" for number in range(1, trials + repeats + 1)]
        units = [(case, next(shown)) for case, _ in hand]
        pages = [(*units[i], "") for i in rng.permutation(trials)]
        third = trials // 3
        again = rng.choice(third, repeats, replace=False) if repeats else []
        late = pages[trials - third :] + [(pages[i][0], pages[i][1][::-1], names[i]) for i in again]
        pages[trials - third :] = [late[i] for i in rng.permutation(len(late))]
        made += [Trial(name, rater, n, *page) for n, (name, page) in enumerate(zip(names, pages, strict=True), 1)]
    return made


def choose_sides(trials: Sequence[tuple[int, Unit]], rng: Generator) -> list[SystemSet]:
    """The order of the systems in every trial (rater, unit).

    Starting from random orders, each trial in turn takes the order that best balances how often its systems are at each
    position in the whole study, in the rater's form and for its unit (a linear assignment); ties are broken at random.
    """
    from scipy.optimize import linear_sum_assignment

    sets = [np.array(system_set) for _, (_, system_set) in trials]
    systems, width = np.unique(np.concatenate(sets)), len(sets[0])
    counts: dict[object, np.ndarray] = defaultdict(lambda: np.zeros((len(systems), width), np.int64))
    groups = [(counts["study"], counts[rater], counts[unit]) for rater, unit in trials]
    rows = [np.searchsorted(systems, system_set) for system_set in sets]
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
    return [tuple(names[np.argsort(place)].tolist()) for names, place in zip(sets, places, strict=True)]
