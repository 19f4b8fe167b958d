"""A vector kernel in Numba: y[i] = a * x[i] + sin(y[i]), checked against NumPy."""

import math

import numpy as np
from numba import cuda


@cuda.jit
def saxpy_sin(a, x, y):
    i = cuda.grid(1)
    if i < x.size:
        y[i] = a * x[i] + math.sin(y[i])


def main():
    count = 100_000
    rng = np.random.default_rng(1)
    x = rng.random(count, dtype=np.float32)
    y = rng.random(count, dtype=np.float32) * 6 - 3
    device_x, device_y = cuda.to_device(x), cuda.to_device(y)
    saxpy_sin[(count + 255) // 256, 256](np.float32(2.5), device_x, device_y)
    result = device_y.copy_to_host()
    expected = 2.5 * x.astype(np.float64) + np.sin(y.astype(np.float64))
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6)
    print(f"numba vector: {count} elements: equal")

    # A slice with strides, and an array that Numba copies to and fro by itself.
    device_x = cuda.to_device(x)
    host = y[:1000].copy()
    saxpy_sin[8, 128](np.float32(-1.0), device_x[::100], host)
    np.testing.assert_allclose(host, np.sin(y[:1000].astype(np.float64)) - x[::100], rtol=0, atol=2e-6)
    print("numba vector: strided view: equal")
    print("PASS")


main()
