"""CuPy: kernels compiled by NVRTC, CUB, and the mathematical libraries."""

import numpy as np

import cupy as cp

from sections import check, run, show


def close(name, actual, expected, bound):
    actual, expected = cp.asnumpy(actual), np.asarray(expected)
    scale = np.abs(expected).max() or 1.0
    worst = np.abs(actual - expected).max() / scale
    check(worst <= bound, f"{name} is off by {worst:.3g} of the largest value")


def random(*shape):
    return np.random.default_rng(5).standard_normal(shape)


def device():
    properties = cp.cuda.runtime.getDeviceProperties(0)
    show("device", properties["name"].decode(), properties["major"], properties["minor"], properties["multiProcessorCount"])
    show("versions", cp.cuda.runtime.driverGetVersion(), cp.cuda.runtime.runtimeGetVersion())
    show("attributes", *[f"{k}={v}" for k, v in sorted(cp.cuda.Device(0).attributes.items())])


def elementwise():
    x = random(1_000_000)
    y = cp.asarray(x)
    close("sin", cp.sin(y) * cp.exp(-y * y), np.sin(x) * np.exp(-x * x), 1e-14)
    show("sums", float(y.sum()), float(cp.abs(y).max()), float(y.std()))
    kernel = cp.ElementwiseKernel("T a, T b", "T c", "c = a * a + b", "square_add")
    close("kernel", kernel(y, y + 1), x * x + x + 1, 1e-14)
    reduction = cp.ReductionKernel("T a", "T b", "a * a", "a + b", "b = sqrt(a)", "0", "norm")
    show("norm", float(reduction(y)))

    # The kernel gets the function's name: a lambda's would be none.
    @cp.fuse
    def fused(a, b):
        return cp.tanh(a) + b * 2

    close("fuse", fused(y, y), np.tanh(x) + x * 2, 1e-14)
    show("half", float(y.astype(cp.float16).astype(cp.float64).sum()))


def sorting():
    x = random(200_000)
    y = cp.asarray(x)
    check(bool((cp.asnumpy(cp.sort(y)) == np.sort(x)).all()), "sort")
    check(bool((cp.asnumpy(cp.argsort(y)) == np.argsort(x)).all()), "argsort")
    close("cumsum", cp.cumsum(y), np.cumsum(x), 1e-11)
    integers = cp.asarray((x * 10).astype(np.int64))
    values, counts = cp.unique(integers, return_counts=True)
    show("unique", len(values), int(counts.max()), int(values.sum()))
    show("histogram", *cp.histogram(y, bins=10, range=(-3, 3))[0].tolist())
    show("percentile", float(cp.percentile(y, 90)))


SOURCE = r"""
extern "C" __constant__ float weights[4];

extern "C" __global__ void blur(const float *in, float *out, int count) {
    extern __shared__ float tile[];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    tile[threadIdx.x] = i < count ? in[i] : 0.0f;
    __syncthreads();
    float sum = 0.0f;
    for (int k = 0; k < 4; k++)
        if (threadIdx.x + k < blockDim.x)
            sum += weights[k] * tile[threadIdx.x + k];
    if (i < count)
        out[i] = sum;
}

template <class T> __global__ void scale(T *x, T by, long long count) {
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < count)
        x[i] *= by;
}
"""


def raw_kernels():
    x = random(4096).astype(np.float32)
    module = cp.RawModule(code=SOURCE, options=("-std=c++17",), name_expressions=["scale<float>", "scale<double>"])
    address = module.get_global("weights")
    cp.ndarray(4, cp.float32, address)[...] = cp.asarray([1, 2, 3, 4], dtype=cp.float32)
    out = cp.zeros(4096, dtype=cp.float32)
    blur = module.get_function("blur")
    blur((32,), (128,), (cp.asarray(x), out, np.int32(4096)), shared_mem=512)
    blocks = np.pad(x.reshape(32, 128), ((0, 0), (0, 3)))
    close("blur", out.reshape(32, 128), sum((k + 1) * blocks[:, k : k + 128] for k in range(4)), 1e-6)
    show("attributes", blur.num_regs > 0, blur.shared_size_bytes, blur.max_threads_per_block, blur.const_size_bytes >= 16)
    y = cp.ones(1000, dtype=cp.float64)
    module.get_function("scale<double>")((8,), (128,), (y, np.float64(2.5), np.int64(1000)))
    show("template", float(y.sum()))
    try:
        cp.RawModule(code='extern "C" __global__ void broken() { nothing; }').compile()
        show("bad source", "compiled")
    except cp.cuda.compiler.CompileException:
        show("bad source", "CompileException")
    cooperative = cp.RawKernel(
        r"""
#include <cooperative_groups.h>
extern "C" __global__ void meet(unsigned *counter, unsigned *seen) {
    if (threadIdx.x == 0) atomicAdd(counter, 1);
    cooperative_groups::this_grid().sync();
    if (threadIdx.x == 0) seen[blockIdx.x] = *(volatile unsigned *)counter;
}""",
        "meet",
        enable_cooperative_groups=True,
    )
    counter, seen = cp.zeros(1, dtype=cp.uint32), cp.zeros(40, dtype=cp.uint32)
    cooperative((40,), (64,), (counter, seen))
    show("cooperative", int(seen.min()), int(seen.max()))


def libraries():
    a, b = random(300, 200), random(200, 100)
    close("matmul", cp.asarray(a) @ cp.asarray(b), a @ b, 1e-13)
    close("single", cp.asarray(a, dtype=cp.float32) @ cp.asarray(b, dtype=cp.float32), a @ b, 1e-5)
    close("einsum", cp.einsum("ij,jk->ki", cp.asarray(a), cp.asarray(b)), (a @ b).T, 1e-13)
    close("fftn", cp.fft.fftn(cp.asarray(a)), np.fft.fftn(a), 1e-13)
    close("rfft", cp.fft.irfft(cp.fft.rfft(cp.asarray(a))), a, 1e-13)
    square = a[:200].T @ a[:200] + 50 * np.eye(200)
    close("solve", cp.linalg.solve(cp.asarray(square), cp.asarray(b)), np.linalg.solve(square, b), 1e-11)
    close("eigvalsh", cp.linalg.eigvalsh(cp.asarray(square)), np.linalg.eigvalsh(square), 1e-11)
    close("svd", cp.linalg.svd(cp.asarray(a), compute_uv=False), np.linalg.svd(a, compute_uv=False), 1e-11)
    close("inv", cp.linalg.inv(cp.asarray(square)) @ cp.asarray(square), np.eye(200), 1e-11)
    cp.random.seed(9)
    for name in ("uniform", "normal", "gamma", "integers"):
        draw = {
            "uniform": lambda: cp.random.rand(100_000),
            "normal": lambda: cp.random.standard_normal(100_000),
            "gamma": lambda: cp.random.default_rng(3).standard_gamma(2.0, 100_000),
            "integers": lambda: cp.random.randint(0, 1000, 100_000),
        }[name]()
        show(name, float(draw.astype(cp.float64).sum()), float(draw.max()))


def sparse():
    import cupyx.scipy.sparse as sparse

    dense = random(400, 300)
    dense[np.abs(dense) < 1.5] = 0
    matrix = sparse.csr_matrix(cp.asarray(dense))
    show("stored", matrix.nnz)
    x = random(300)
    close("vector", matrix @ cp.asarray(x), dense @ x, 1e-13)
    close("matrix", (matrix @ matrix.T).toarray(), dense @ dense.T, 1e-12)


def streams_memory():
    pool = cp.get_default_memory_pool()
    streams = [cp.cuda.Stream(non_blocking=True) for _ in range(4)]
    sums = []
    for index, stream in enumerate(streams):
        with stream:
            sums.append((cp.arange(1 << 20, dtype=cp.float64) * index).sum())
    for stream in streams:
        stream.synchronize()
    show("sums", *[float(total) for total in sums])
    start, stop = cp.cuda.Event(), cp.cuda.Event()
    start.record()
    cp.ones(1 << 20).sum()
    stop.record()
    stop.synchronize()
    show("elapsed", 0 <= cp.cuda.get_elapsed_time(start, stop) < 10_000)
    memory = cp.cuda.alloc_pinned_memory(8 << 20)
    pinned = np.frombuffer(memory, dtype=np.float64, count=1 << 20)
    pinned[...] = np.arange(1 << 20)
    copy = cp.empty(1 << 20)
    copy.set(pinned, stream=streams[0])
    streams[0].synchronize()
    show("pinned", float(copy.sum()))
    calls = []
    streams[1].launch_host_func(calls.append, "called")
    streams[1].synchronize()
    show("host function", *calls)
    del copy
    pool.free_all_blocks()
    show("used", pool.used_bytes() < 64 << 20)
    with cp.cuda.using_allocator(cp.cuda.MemoryPool(cp.cuda.malloc_managed).malloc):
        managed = cp.arange(100_000, dtype=cp.int64)
        show("managed", int(managed.sum()))
        del managed
    with cp.cuda.using_allocator(cp.cuda.MemoryAsyncPool().malloc):
        asynchronous = cp.arange(100_000, dtype=cp.int64)
        show("async pool", int(asynchronous.sum()))
        del asynchronous
    try:
        cp.zeros(1 << 42, dtype=cp.uint8)
        show("too much", "allocated")
    except cp.cuda.memory.OutOfMemoryError:
        show("too much", "OutOfMemoryError")


def graphs():
    stream = cp.cuda.Stream(non_blocking=True)
    x = cp.ones(1000)
    with stream:
        x *= 2
        x += 1
        stream.begin_capture()
        x *= 2
        x += 1
        graph = stream.end_capture()
        for _ in range(5):
            graph.launch(stream)
        stream.synchronize()
    show("graph", float(x.sum()))


def textures():
    from cupy.cuda import texture

    kernel = cp.RawKernel(
        r"""
extern "C" __global__ void sample(cudaTextureObject_t texture, float *out, int width, int height) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < width * height)
        out[i] = tex2D<float>(texture, i % width + 1.0f, i / width + 0.5f);
}""",
        "sample",
    )
    source = random(32, 64).astype(np.float32)
    channels = texture.ChannelFormatDescriptor(32, 0, 0, 0, cp.cuda.runtime.cudaChannelFormatKindFloat)
    array = texture.CUDAarray(channels, 64, 32)
    array.copy_from(source)
    resource = texture.ResourceDescriptor(cp.cuda.runtime.cudaResourceTypeArray, cuArr=array)
    clamp = cp.cuda.runtime.cudaAddressModeClamp
    description = texture.TextureDescriptor(
        (clamp, clamp), cp.cuda.runtime.cudaFilterModeLinear, cp.cuda.runtime.cudaReadModeElementType
    )
    sampled = texture.TextureObject(resource, description)
    out = cp.zeros((32, 64), dtype=cp.float32)
    kernel((16,), (128,), (sampled, out, np.int32(64), np.int32(32)))
    # Halfway between two neighbours; the weights have eight bits.
    right = np.concatenate([source[:, 1:], source[:, -1:]], axis=1)
    close("texture", out, (source + right) / 2, 2e-3)
    show("texture", float(out.sum()))


if __name__ == "__main__":
    run(
        [device, elementwise, sorting, raw_kernels, libraries, sparse, streams_memory, graphs, textures],
        rtol=1e-9,
        atol=1e-9,
    )
