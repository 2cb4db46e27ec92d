"""The steps of the compiled kernel: one level forward, one level backward, the fixed effects.

Formulas as in `psymech.gaussian.eliminate`, with ``M = R D R'`` (unit lower ``R``) in place of a Cholesky factor, so
that no square roots are taken, and one logarithm for many pivots. Sizes travel as the lengths of tuples (``q_``,
``m_``, ``k_``), which the compiler knows; their contents are not used. Every vector holds one number of eight units.
"""

import numpy as np
from numba import njit

from psymech.gaussian.ldl import ldl_column, solve_column
from psymech.gaussian.simd import LANES, fma, fnma, lane, load, splat, store, total

LARGE = 1e100  # pivots are at least one; their product is folded into a logarithm before it can overflow
B = LANES


@njit(nogil=True, error_model="numpy")
def workspace(size):
    """Return zeros that start at a cache line, so that no vector straddles two."""
    raw = np.zeros(size + 8)
    return raw[(-raw.ctypes.data % 64) // 8 :]


@njit(nogil=True, error_model="numpy", forceinline=True)
def factorise(S, base, q_, m_, L, w):
    """Fill ``w`` for one block with C and T (each q m) and, after room for two more, R with 1/D on its diagonal.

    Return |M|.
    """
    q, m = len(q_), len(m_)
    T, R = q * m * B, 4 * q * m * B
    for c in range(m):
        for a in range(q):
            t = (a * (a + 1)) // 2 + c if c < a else (c * (c + 1)) // 2 + a
            store(w, (a * m + c) * B, load(S, base + t * B))
        for a in range(q):
            acc = splat(L[a, a]) * load(w, (a * m + c) * B)
            for b in range(a + 1, q):
                acc = fma(splat(L[b, a]), load(w, (b * m + c) * B), acc)
            store(w, T + (a * m + c) * B, acc)
    for i in range(q):
        for j in range(i + 1):
            acc = splat(1.0 if i == j else 0.0)
            for b in range(j, q):
                acc = fma(load(w, T + (i * m + b) * B), splat(L[b, j]), acc)
            store(w, R + (i * q + j) * B, acc)
    det = splat(1.0)
    for j in range(q):
        det = det * ldl_column(w, R, q, j)
    return det


@njit(nogil=True, error_model="numpy", forceinline=True)
def _eliminate(S, base, q_, m_, L, w):
    """Fill ``w`` with what `factorise` gives and, between T and R, W = R^{-1} T and X = D^{-1} W; return |M|."""
    q, m = len(q_), len(m_)
    T, W, X, R = q * m * B, 2 * q * m * B, 3 * q * m * B, 4 * q * m * B
    det = factorise(S, base, q_, m_, L, w)
    for c in range(m):
        solve_column(w, R, q, m, c, T, W, X)
    return det


@njit(nogil=True, error_model="numpy")
def combine(S, block, coefs, k_, m_, w, at):
    """Write sum_l c_l S_l of one block into ``w``."""
    n_tri = (len(m_) * (len(m_) + 1)) // 2
    base = block * len(k_) * n_tri * B
    for t in range(n_tri):
        acc = splat(coefs[0]) * load(S, base + t * B)
        for k in range(1, len(k_)):
            acc = fma(splat(coefs[k]), load(S, base + (k * n_tri + t) * B), acc)
        store(w, at + t * B, acc)


@njit(nogil=True, error_model="numpy")
def _flush(w, at, n_tri, up_map, up, slot):
    """Add the running sums of one parent to its block, and clear them."""
    target = (slot // B) * n_tri * B + slot % B
    for t in range(n_tri):
        up[target + up_map[t] * B] += total(load(w, at + t * B))
        store(w, at + t * B, splat(0.0))


@njit(nogil=True, error_model="numpy")
def _log_lanes(det):
    out = 0.0
    for b in range(B):
        out += np.log(lane(det, b))
    return out


@njit(nogil=True, error_model="numpy")
def forward_level(S, coefs, parent, up_map, L, q_, m_, k_, up):
    """Eliminate one level: add what its units pass up to ``up`` (blocks of the next level) and return the summed
    log|M|.
    """
    q, m = len(q_), len(m_)
    n_tri = (m * (m + 1)) // 2
    W, X = 2 * q * m * B, 3 * q * m * B
    OUT = (4 * q * m + q * q) * B
    SUM, MIX = OUT + n_tri * B, OUT + 2 * n_tri * B
    w = workspace(MIX + n_tri * B)
    log_det, det, current = 0.0, splat(1.0), -1
    for block in range(parent.size // B):
        source, base = S, block * n_tri * B
        if len(k_) > 1:
            combine(S, block, coefs, k_, m_, w, MIX)
            source, base = w, MIX
        det = det * _eliminate(source, base, q_, m_, L, w)
        if total(det) > LARGE:
            log_det += _log_lanes(det)
            det = splat(1.0)
        first = parent[block * B]
        single = first == parent[block * B + B - 1]
        if current >= 0 and (not single or first != current):
            _flush(w, SUM, n_tri, up_map, up, current)
            current = -1
        if single:
            current = first
        to = SUM if single else OUT
        for c in range(m):
            for d in range(c + 1):
                t = (c * (c + 1)) // 2 + d
                acc = load(source, base + t * B)
                for a in range(q):
                    acc = fnma(load(w, W + (a * m + c) * B), load(w, X + (a * m + d) * B), acc)
                if single:
                    acc = acc + load(w, SUM + t * B)
                store(w, to + t * B, acc)
        if not single:
            for t in range(n_tri):
                place = up_map[t] * B
                for b in range(B):
                    slot = parent[block * B + b]
                    up[(slot // B) * n_tri * B + place + slot % B] += w[OUT + t * B + b]
    if current >= 0:
        _flush(w, SUM, n_tri, up_map, up, current)
    return log_det + _log_lanes(det)


@njit(nogil=True, error_model="numpy")
def _load_adjoint(above, parent, block, up_map, m, w, at):
    """Write the parents' adjoint into ``w`` as a full symmetric matrix, one parent in each lane."""
    n_tri = (m * (m + 1)) // 2
    first = parent[block * B]
    if first == parent[block * B + B - 1]:
        for c in range(m):
            for d in range(c + 1):
                g = splat(above[first * n_tri + up_map[(c * (c + 1)) // 2 + d]])
                store(w, at + (c * m + d) * B, g)
                store(w, at + (d * m + c) * B, g)
        return
    for c in range(m):
        for d in range(c + 1):
            place = up_map[(c * (c + 1)) // 2 + d]
            for b in range(B):
                w[at + (c * m + d) * B + b] = above[parent[block * B + b] * n_tri + place]
            store(w, at + (d * m + c) * B, load(w, at + (c * m + d) * B))


@njit(nogil=True, error_model="numpy")
def backward_level(S, coefs, parent, up_map, L, q_, m_, k_, above, descend, own, factor_bar, coef_bar):
    """Walk one level down: fill ``factor_bar`` (lower), and with ``descend`` the units' adjoints ``own``, else
    ``coef_bar``.

    ``above`` and ``own`` hold a lower triangle for each slot, slot by slot.
    """
    q, m = len(q_), len(m_)
    n_tri = (m * (m + 1)) // 2
    T, W, X, R = q * m * B, 2 * q * m * B, 3 * q * m * B, 4 * q * m * B
    G = (4 * q * m + q * q) * B
    SUM = G + m * m * B
    MIX = SUM + q * q * B
    BAR = MIX + n_tri * B
    w = workspace(BAR + n_tri * B)
    last = -1
    for block in range(parent.size // B):
        source, base = S, block * n_tri * B
        if len(k_) > 1:
            combine(S, block, coefs, k_, m_, w, MIX)
            source, base = w, MIX
        _eliminate(source, base, q_, m_, L, w)
        first = parent[block * B]
        if first != last or first != parent[block * B + B - 1]:
            _load_adjoint(above, parent, block, up_map, m, w, G)
            last = first if first == parent[block * B + B - 1] else -1
        for c in range(m):  # X = R^{-T} D^{-1} W, and V = C - T_z' X over C
            for i in range(q):
                a = q - 1 - i
                acc = load(w, X + (a * m + c) * B)
                for b in range(a + 1, q):
                    acc = fnma(load(w, R + (b * q + a) * B), load(w, X + (b * m + c) * B), acc)
                store(w, X + (a * m + c) * B, acc)
            for a in range(q):
                acc = load(w, (a * m + c) * B)
                for b in range(q):
                    acc = fnma(load(w, T + (b * m + a) * B), load(w, X + (b * m + c) * B), acc)
                store(w, (a * m + c) * B, acc)
        for c in range(m):  # Y = X G over W
            for a in range(q):
                acc = load(w, X + a * m * B) * load(w, G + c * B)
                for d in range(1, m):
                    acc = fma(load(w, X + (a * m + d) * B), load(w, G + (d * m + c) * B), acc)
                store(w, W + (a * m + c) * B, acc)
        for i in range(q):
            for j in range(i + 1):
                acc = load(w, i * m * B) * load(w, W + j * m * B)
                for c in range(1, m):
                    acc = fma(load(w, (i * m + c) * B), load(w, W + (j * m + c) * B), acc)
                acc = fma(splat(2.0), acc, load(w, X + (j * m + i) * B))
                store(w, SUM + (i * q + j) * B, load(w, SUM + (i * q + j) * B) - acc)
        if descend or len(k_) > 1:
            _adjoint(L, q_, m_, w, G, BAR)
        if descend:
            for t in range(n_tri):
                for b in range(B):
                    own[(block * B + b) * n_tri + t] = w[BAR + t * B + b]
        elif len(k_) > 1:
            for k in range(len(k_)):
                acc = splat(0.0)
                for c in range(m):
                    for d in range(c + 1):
                        t = (c * (c + 1)) // 2 + d
                        term = load(w, BAR + t * B) * load(S, ((block * len(k_) + k) * n_tri + t) * B)
                        acc = fma(splat(1.0 if c == d else 2.0), term, acc)
                coef_bar[k] += total(acc)
    for i in range(q):
        for j in range(i + 1):
            factor_bar[i, j] = total(load(w, SUM + (i * q + j) * B))


@njit(nogil=True, error_model="numpy")
def _adjoint(L, q_, m_, w, G, BAR):
    """Write the lower triangle of P G P' - E/2 (in the block of the random columns); uses up T, and Y in W."""
    q, m = len(q_), len(m_)
    T, W, X, R = q * m * B, 2 * q * m * B, 3 * q * m * B, 4 * q * m * B
    for c in range(m):  # U = L X over T, U G = L Y over W
        for i in range(q):
            a = q - 1 - i
            u = splat(L[a, a]) * load(w, X + (a * m + c) * B)
            g = splat(L[a, a]) * load(w, W + (a * m + c) * B)
            for b in range(a):
                u = fma(splat(L[a, b]), load(w, X + (b * m + c) * B), u)
                g = fma(splat(L[a, b]), load(w, W + (b * m + c) * B), g)
            store(w, T + (a * m + c) * B, u)
            store(w, W + (a * m + c) * B, g)
    for c in range(q, m):
        for d in range(c + 1):
            g = load(w, G + (c * m + d) * B)
            if d < q:
                g = g - load(w, W + (d * m + c) * B)
            store(w, BAR + ((c * (c + 1)) // 2 + d) * B, g)
    for i in range(q):  # K = R^{-1} L' over X (its first q columns): E = K' D^{-1} K
        for c in range(q):
            k = splat(L[c, i] if i <= c else 0.0)
            for b in range(i):
                k = fnma(load(w, R + (i * q + b) * B), load(w, X + (b * m + c) * B), k)
            store(w, X + (i * m + c) * B, k)
    for i in range(q):
        for j in range(i + 1):
            e = splat(0.0)
            for b in range(q):
                d = load(w, R + (b * q + b) * B)
                e = fma(load(w, X + (b * m + i) * B) * d, load(w, X + (b * m + j) * B), e)
            g = load(w, G + (i * m + j) * B) - load(w, W + (i * m + j) * B) - load(w, W + (j * m + i) * B)
            for c in range(m):
                g = fma(load(w, W + (i * m + c) * B), load(w, T + (j * m + c) * B), g)
            store(w, BAR + ((i * (i + 1)) // 2 + j) * B, fnma(splat(0.5), e, g))


@njit(nogil=True, error_model="numpy")
def entry(H, i, j):
    """Return an entry of a symmetric matrix given by its lower triangle."""
    return H[(i * (i + 1)) // 2 + j] if j <= i else H[(j * (j + 1)) // 2 + i]


@njit(nogil=True, error_model="numpy")
def solve_top(H, scale, integrate, center, precision, H_bar, center_bar):
    """Fill the derivative by ``scale H`` (lower triangle) and by ``center``; return the value.

    ``H`` has the fixed effects first, then the response. ``center`` is beta, or with ``integrate`` the prior mean.
    Plain loops: array functions would take longer to compile than everything else.
    """
    p = center.size
    d, a = np.empty(p), np.empty(p + 1)
    quad = scale * entry(H, p, p)
    for i in range(p):
        s = entry(H, p, i)
        for j in range(p):
            s -= entry(H, i, j) * center[j]
        d[i] = scale * s
        quad -= center[i] * (scale * entry(H, p, i) + d[i])
        a[i] = -center[i]
        center_bar[i] = d[i]
    a[p] = 1.0
    value = -0.5 * quad
    for t in range(H_bar.size):
        H_bar[t] = 0.0
    if integrate and p > 0:
        Q, P, C = np.empty((p, p)), np.empty((p, p)), np.empty((p, p))
        for i in range(p):
            for j in range(p):
                P[i, j] = precision[i, j]
                Q[i, j] = precision[i, j] + scale * entry(H, i, j)
        value += 0.5 * cholesky_inverse(P, C)
        value -= 0.5 * cholesky_inverse(Q, C)
        for i in range(p):
            shift = 0.0
            for j in range(p):
                shift += C[i, j] * d[j]
            value += 0.5 * shift * d[i]
            a[i] -= shift
            for j in range(i + 1):
                H_bar[(i * (i + 1)) // 2 + j] = -0.5 * C[i, j]
        for i in range(p):
            center_bar[i] = 0.0
            for j in range(p):
                center_bar[i] -= precision[i, j] * (a[j] + center[j])
    for i in range(p + 1):
        for j in range(i + 1):
            H_bar[(i * (i + 1)) // 2 + j] -= 0.5 * a[i] * a[j]
    return value


@njit(nogil=True, error_model="numpy")
def cholesky_inverse(Q, C):
    """Replace ``Q`` by its lower factor, write its inverse into ``C`` and return log|Q| (NaN if not positive
    definite).
    """
    p = Q.shape[0]
    log_det = 0.0
    for j in range(p):
        for k in range(j):
            Q[j, j] -= Q[j, k] * Q[j, k]
        Q[j, j] = np.sqrt(Q[j, j])
        log_det += 2.0 * np.log(Q[j, j])
        for i in range(j + 1, p):
            for k in range(j):
                Q[i, j] -= Q[i, k] * Q[j, k]
            Q[i, j] /= Q[j, j]
    K = np.empty((p, p))
    for c in range(p):
        K[c, c] = 1.0 / Q[c, c]
        for i in range(c + 1, p):
            s = 0.0
            for k in range(c, i):
                s += Q[i, k] * K[k, c]
            K[i, c] = -s / Q[i, i]
    for i in range(p):
        for j in range(i + 1):
            s = 0.0
            for k in range(i, p):
                s += K[k, i] * K[k, j]
            C[i, j] = s
            C[j, i] = s
    return log_det


@njit(nogil=True, error_model="numpy")
def unblock(H, n_tri):
    """Return the triangle of slot 0."""
    out = np.empty(n_tri)
    for t in range(n_tri):
        out[t] = H[t * B]
    return out


@njit(nogil=True, error_model="numpy")
def inner_product(a, b, m):
    """Return the inner product of two symmetric matrices given by their lower triangles."""
    out = 0.0
    for c in range(m):
        for d in range(c):
            out += 2.0 * a[(c * (c + 1)) // 2 + d] * b[(c * (c + 1)) // 2 + d]
        out += a[(c * (c + 1)) // 2 + c] * b[(c * (c + 1)) // 2 + c]
    return out


@njit(nogil=True, error_model="numpy")
def scaled(matrix, scale):
    """Return a matrix times a number."""
    out = np.empty_like(matrix)
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            out[i, j] = scale * matrix[i, j]
    return out


@njit(nogil=True, error_model="numpy")
def sum_of_products(a, b):
    """Return the sum of the products of two matrices' entries."""
    out = 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out += a[i, j] * b[i, j]
    return out
