"""Triton kernels, through PyTorch's tensors."""

import torch
import triton
import triton.language as tl

from sections import check, run, show

DEVICE = "cuda"


@triton.jit
def add_kernel(x, y, out, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    tl.store(out + at, tl.load(x + at, mask=mask) + tl.load(y + at, mask=mask), mask=mask)


@triton.jit
def softmax_kernel(x, out, columns, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    row = tl.program_id(0) * columns
    values = tl.load(x + row + at, mask=at < columns, other=-float("inf"))
    values = tl.exp(values - tl.max(values, axis=0))
    tl.store(out + row + at, values / tl.sum(values, axis=0), mask=at < columns)


@triton.jit
def matmul_kernel(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, K, BK):
        depth = start + tl.arange(0, BK)
        left = tl.load(a + rows[:, None] * K + depth[None, :], mask=(rows[:, None] < M) & (depth[None, :] < K), other=0.0)
        right = tl.load(b + depth[:, None] * N + columns[None, :], mask=(depth[:, None] < K) & (columns[None, :] < N), other=0.0)
        total += tl.dot(left, right)
    mask = (rows[:, None] < M) & (columns[None, :] < N)
    tl.store(c + rows[:, None] * N + columns[None, :], total.to(tl.float16), mask=mask)


@triton.jit
def count_kernel(x, bins, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    tl.atomic_add(bins + tl.load(x + at, mask=mask, other=0), 1, mask=mask)


def add():
    torch.manual_seed(1)
    x, y = torch.rand(98_432, device=DEVICE), torch.rand(98_432, device=DEVICE)
    out = torch.empty_like(x)
    add_kernel[(triton.cdiv(x.numel(), 1024),)](x, y, out, x.numel(), BLOCK=1024)
    check(torch.equal(out, x + y), "sum")
    show("add", out.double().sum().item())


def softmax():
    torch.manual_seed(2)
    x = torch.randn(500, 781, device=DEVICE)
    out = torch.empty_like(x)
    softmax_kernel[(500,)](x, out, 781, BLOCK=1024, num_warps=8)
    check(torch.allclose(out, torch.softmax(x, 1), atol=1e-6), "softmax")
    show("softmax", out.double().square().sum().item())


def matmul():
    torch.manual_seed(3)
    a = torch.randn(512, 384, device=DEVICE, dtype=torch.float16)
    b = torch.randn(384, 640, device=DEVICE, dtype=torch.float16)
    c = torch.empty(512, 640, device=DEVICE, dtype=torch.float16)
    for stages in (2, 4):
        matmul_kernel[(4, 5)](a, b, c, 512, 640, 384, BM=128, BN=128, BK=64, num_warps=8, num_stages=stages)
        check(torch.allclose(c.float(), a.float() @ b.float(), atol=0.2, rtol=1e-2), "matmul")
        show(f"matmul, {stages} stages", c.double().sum().item())


def atomics():
    x = torch.arange(100_000, device=DEVICE) % 17
    bins = torch.zeros(17, dtype=torch.int32, device=DEVICE)
    count_kernel[(triton.cdiv(x.numel(), 512),)](x, bins, x.numel(), BLOCK=512)
    show("bins", *bins.tolist())


def autotune():
    tuned = triton.autotune(configs=[triton.Config({"BLOCK": 256}), triton.Config({"BLOCK": 1024}, num_warps=8)], key=["count"])(add_kernel)
    x = torch.ones(1_000_000, device=DEVICE)
    out = torch.empty_like(x)
    tuned[lambda meta: (triton.cdiv(x.numel(), meta["BLOCK"]),)](x, x, out, x.numel())
    show("tuned", out.sum().item())


if __name__ == "__main__":
    run([add, softmax, matmul, atomics, autotune], rtol=1e-4)
