"""Numba's CUDA target (the package numba-cuda where it is installed)."""

import math

import numpy as np

from numba import cuda, float32

from sections import check, run, show


@cuda.jit
def add(a, b, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = a[i] + b[i]


@cuda.jit
def block_sum(values, sums):
    tile = cuda.shared.array(256, float32)
    i = cuda.grid(1)
    t = cuda.threadIdx.x
    tile[t] = values[i] if i < values.size else 0
    cuda.syncthreads()
    step = 128
    while step > 0:
        if t < step:
            tile[t] += tile[t + step]
        cuda.syncthreads()
        step //= 2
    if t == 0:
        sums[cuda.blockIdx.x] = tile[0]


@cuda.jit
def histogram(values, bins):
    i = cuda.grid(1)
    if i < values.size:
        cuda.atomic.add(bins, values[i] % bins.size, 1)


@cuda.jit(device=True)
def twice(x):
    return x * 2


@cuda.jit
def waves(x, out):
    i = cuda.grid(1)
    if i < x.size:
        out[i] = math.sin(twice(x[i])) + math.exp(-x[i] * x[i])


def device():
    context = cuda.current_context()
    found = cuda.get_current_device()
    name = found.name.decode() if isinstance(found.name, bytes) else found.name
    show("device", name, *found.compute_capability, found.MULTIPROCESSOR_COUNT, found.WARP_SIZE)
    free, total = context.get_memory_info()
    show("memory", 0 < free <= total, total)


def arithmetic():
    x = np.arange(100_000, dtype=np.float32)
    out = np.zeros_like(x)
    add[(x.size + 255) // 256, 256](x, x, out)
    check((out == 2 * x).all(), "sum")
    y = np.linspace(-2, 2, 10_000)
    out = np.zeros_like(y)
    waves[40, 256](y, out)
    check(np.abs(out - (np.sin(2 * y) + np.exp(-y * y))).max() < 1e-12, "waves")
    show("waves", float(out.sum()))


def shared_atomics():
    values = np.random.default_rng(5).random(100_000, dtype=np.float32)
    sums = cuda.device_array(391, dtype=np.float32)
    block_sum[391, 256](cuda.to_device(values), sums)
    show("sums", float(sums.copy_to_host().astype(np.float64).sum()))
    bins = cuda.to_device(np.zeros(37, dtype=np.int64))
    histogram[391, 256](cuda.to_device(np.arange(100_000)), bins)
    show("bins", *bins.copy_to_host().tolist())


def streams_memory():
    stream = cuda.stream()
    with cuda.pinned(np.empty(1)):
        pass
    pinned = cuda.pinned_array(1 << 20, dtype=np.float32)
    pinned[:] = 1.5
    start, stop = cuda.event(), cuda.event()
    start.record(stream)
    on_device = cuda.to_device(pinned, stream=stream)
    out = cuda.device_array_like(on_device)
    add[4096, 256, stream](on_device, on_device, out)
    stop.record(stream)
    stream.synchronize()
    show("elapsed", 0 <= cuda.event_elapsed_time(start, stop) < 60_000)
    show("pinned", float(out.copy_to_host().astype(np.float64).sum()))
    mapped = cuda.mapped_array(1000, dtype=np.float32)
    mapped[:] = 2
    add[4, 256](mapped, mapped, mapped)
    cuda.synchronize()
    show("mapped", float(mapped.sum()))
    managed = cuda.managed_array(1000, dtype=np.float32)
    managed[:] = 3
    add[4, 256](managed, managed, managed)
    cuda.synchronize()
    show("managed", float(managed.sum()))


def grid_sync():
    @cuda.jit("void(int32[:], int32[:])")
    def meet(counter, seen):
        grid = cuda.cg.this_grid()
        if cuda.threadIdx.x == 0:
            cuda.atomic.add(counter, 0, 1)
        grid.sync()
        if cuda.threadIdx.x == 0:
            seen[cuda.blockIdx.x] = cuda.atomic.add(counter, 0, 0)

    counter, seen = cuda.to_device(np.zeros(1, dtype=np.int32)), cuda.to_device(np.zeros(16, dtype=np.int32))
    meet[16, 64](counter, seen)
    seen = seen.copy_to_host()
    show("seen", int(seen.min()), int(seen.max()))


if __name__ == "__main__":
    run([device, arithmetic, shared_atomics, streams_memory, grid_sync], rtol=1e-5)
