"""Rows of patients who change therapist: second moments of what several units, or changing ones, add to them."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def nested_in(lower: Ints, upper: NDArray) -> bool:
    """Whether all rows of a lower unit have the same upper unit."""
    place = np.unique(lower, return_inverse=True)[1]
    first = np.zeros(place.max(initial=0) + 1, dtype=upper.dtype)
    first[place] = upper
    return np.array_equal(first[place], upper)


def mean_moment(z: Floats, code: Ints, weight: Floats, group: Ints) -> Floats:
    r"""Return M such that independent effects of covariance Omega give group means of variance tr(Omega M).

    .. math:: M = \frac{1}{n} \sum_g n_g \sum_k \bar c_{gk} \bar c_{gk}', \quad
              \bar c_{gk} = \frac{1}{n_g} \sum_{t \in g} w_{tk} z_t

    the average over rows t of the variance of their group's mean of :math:`\sum_k w_{tk} z_t' v_k`.

    Parameters
    ----------
    z : (n, q) columns; code, weight : (n, m) units of each row and their weights; group : (n,).

    Returns
    -------
    ndarray, shape (q, q)
    """
    place, size = np.unique(group, return_inverse=True, return_counts=True)[1:]
    width = int(code.max(initial=0)) + 1
    held, pair = np.unique(place[:, None] * width + code, return_inverse=True)
    pair = pair.reshape(code.shape)
    sums = np.zeros((held.size, z.shape[1]))
    for j in range(code.shape[1]):
        np.add.at(sums, pair[:, j], weight[:, [j]] * z)
    return (sums / size[held // width, None]).T @ sums / len(z)
