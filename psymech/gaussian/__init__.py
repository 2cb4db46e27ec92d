"""The collapsed Gaussian engine: arrays in, arrays out, whatever the number of sessions.

``cross`` sums the rows once; ``residual`` lists the residual structures that allow it. ``eliminate`` integrates one
level out, ``loglik`` all levels, with the gradient; ``conditional`` gives the effects back, ``leave_out`` predictive
densities. ``dense`` is the oracle. ``kernels_numba``, ``recover_numba`` and ``kernels_jax`` are the same functions
compiled; ``blocks`` lays data out for them, ``kernel_steps`` and ``simd`` are their parts. ``query`` lets DuckDB do
the sums.
"""
