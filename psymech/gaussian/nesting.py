"""The order of nested units in which the engine sums them."""

from collections.abc import Sequence

import numpy as np

from psymech.gaussian.cross import IntArray


def sort_units(codes: Sequence[IntArray]) -> tuple[tuple[IntArray, ...], list[IntArray], list[IntArray]]:
    """Sort nested units so that those of one parent stand together, as `CrossProducts` wants them.

    Parameters
    ----------
    codes
        For each level, lowest first, ``(n,)``: index of each row's unit, every unit present.

    Returns
    -------
    order, places, parents
        The unit at each place, the place of each unit, and (without the top level) each place's parent.
    """
    order: list[IntArray] = []
    places: list[IntArray] = []
    parents: list[IntArray] = []
    for index in reversed(range(len(codes))):
        n = int(codes[index].max()) + 1
        if index == len(codes) - 1:
            sequence = np.arange(n)
        else:
            place_of_parent = np.zeros(n, dtype=np.int64)
            place_of_parent[codes[index]] = places[0][codes[index + 1]]
            sequence = np.argsort(place_of_parent, kind="stable")
            parents.insert(0, place_of_parent[sequence])
        place = np.empty(n, dtype=np.int64)
        place[sequence] = np.arange(n)
        order.insert(0, sequence)
        places.insert(0, place)
    return tuple(order), places, parents
