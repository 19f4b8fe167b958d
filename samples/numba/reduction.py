"""A reduction through shared memory and barriers in Numba, checked against NumPy."""

import numpy as np
from numba import cuda, float64, int32

THREADS = 128


@cuda.jit
def block_sums(values, sums):
    scratch = cuda.shared.array(THREADS, dtype=float64)
    thread = cuda.threadIdx.x
    total = 0.0
    for i in range(cuda.grid(1), values.size, cuda.gridsize(1)):
        total += values[i]
    scratch[thread] = total
    cuda.syncthreads()
    step = THREADS // 2
    while step > 0:
        if thread < step:
            scratch[thread] += scratch[thread + step]
        cuda.syncthreads()
        step //= 2
    if thread == 0:
        sums[cuda.blockIdx.x] = scratch[0]


@cuda.jit
def warp_maxima(values, maxima):
    i = cuda.grid(1)
    value = values[i] if i < values.size else int32(-1)
    for step in (16, 8, 4, 2, 1):
        value = max(value, cuda.shfl_xor_sync(0xFFFFFFFF, value, step))
    if cuda.laneid == 0:
        maxima[i // 32] = value


def main():
    rng = np.random.default_rng(2)
    # Multiples of 1/1024: sums are exact in any order.
    values = rng.integers(0, 1 << 20, 200_003) / 1024.0
    sums = cuda.device_array(24, dtype=np.float64)
    block_sums[24, THREADS](cuda.to_device(values), sums)
    total = sums.copy_to_host().sum()
    assert total == values.sum(), (total, values.sum())
    print(f"numba reduction: {values.size} elements: equal")

    numbers = rng.integers(0, 1 << 30, 32 * 100, dtype=np.int32)
    maxima = np.zeros(100, dtype=np.int32)
    warp_maxima[25, 128](numbers, maxima)
    np.testing.assert_array_equal(maxima, numbers.reshape(100, 32).max(axis=1))
    print("numba reduction: maxima by shuffles: equal")
    print("PASS")


main()
