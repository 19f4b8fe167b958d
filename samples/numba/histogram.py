"""A histogram with atomics in shared and in global memory in Numba, checked against NumPy."""

import numpy as np
from numba import cuda, int32

BINS = 64


@cuda.jit
def histogram(values, bins):
    local = cuda.shared.array(BINS, dtype=int32)
    for i in range(cuda.threadIdx.x, BINS, cuda.blockDim.x):
        local[i] = 0
    cuda.syncthreads()
    for i in range(cuda.grid(1), values.size, cuda.gridsize(1)):
        cuda.atomic.add(local, values[i], 1)
    cuda.syncthreads()
    for i in range(cuda.threadIdx.x, BINS, cuda.blockDim.x):
        cuda.atomic.add(bins, i, local[i])


@cuda.jit
def extremes(values, sum_and_max):
    for i in range(cuda.grid(1), values.size, cuda.gridsize(1)):
        cuda.atomic.add(sum_and_max, 0, values[i] * 0.5)
        cuda.atomic.max(sum_and_max, 1, values[i])


def main():
    rng = np.random.default_rng(3)
    values = (rng.random(300_000) ** 3 * BINS).astype(np.int32)
    bins = np.zeros(BINS, dtype=np.int32)
    histogram[16, 96](values, bins)
    np.testing.assert_array_equal(bins, np.bincount(values, minlength=BINS))
    print(f"numba histogram: {values.size} values: equal")

    result = np.zeros(2, dtype=np.float64)
    extremes[16, 96](values[:20_000], result)
    assert result[0] == values[:20_000].sum() * 0.5, result
    assert result[1] == values[:20_000].max(), result
    print("numba histogram: double sum and maximum: equal")
    print("PASS")


main()
