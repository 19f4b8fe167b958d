"""CuPy figures: elementwise kernels, a reduction, a sort, a matrix product, FFT, and copies to and from NumPy."""

import json
import statistics
import sys
import time

import cupy as cp
import numpy as np


def figure(name, value, unit, better):
    print(json.dumps({"name": "CuPy " + name, "value": value, "unit": unit, "better": better}), flush=True)


def per_call(name, call, budget_s=0.4, batch=10):
    """Milliseconds of a call: median over batches, each with one synchronisation."""
    try:
        for _ in range(3):
            call()
        cp.cuda.Device().synchronize()
        times = []
        end = time.perf_counter() + budget_s
        while len(times) < 3 or time.perf_counter() < end:
            begin = time.perf_counter()
            for _ in range(batch):
                call()
            cp.cuda.Device().synchronize()
            times.append((time.perf_counter() - begin) / batch)
        figure(name, statistics.median(times) * 1e3, "ms", "lower")
        return 0
    except Exception as error:
        print(json.dumps({"name": "CuPy " + name, "error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}), flush=True)
        return 1


def main():
    host = np.random.default_rng(1).random(1 << 22, dtype=np.float32)
    x = cp.asarray(host)
    tiny = x[:1024]
    matrix = x[: 1 << 20].reshape(1024, 1024)
    own = cp.ElementwiseKernel("T a, T b", "T c", "c = a * b + sin(a)", "bench_own")
    bad = 0
    bad += per_call("small elementwise", lambda: tiny + tiny, batch=100)
    bad += per_call("own kernel, 4 Mi floats", lambda: own(x, x))
    bad += per_call("sum to the CPU", lambda: float(x.sum()))
    bad += per_call("sort, 4 Mi floats", lambda: cp.sort(x), batch=3)
    bad += per_call("matmul 1024", lambda: matrix @ matrix)
    bad += per_call("FFT 1024 x 1024", lambda: cp.fft.fft2(matrix))
    bad += per_call("16 MiB from NumPy", lambda: cp.asarray(host), batch=2)
    bad += per_call("16 MiB to NumPy", lambda: cp.asnumpy(x), batch=2)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
