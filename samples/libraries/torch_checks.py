"""PyTorch: what training and inference programs use, each as a section of its own."""

import os

# cuBLAS is deterministic with a workspace of a fixed size only; it reads this when it is loaded.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from sections import check, leave, run, show

DEVICE = "cuda"


def prepare():
    """Called by every section, in its own process: this is where the device is used first."""
    torch.manual_seed(7)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def close(name, actual, expected, bound):
    """Compares with a result from the CPU or in higher precision; the largest difference depends on the scale of the numbers."""
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    scale = expected.abs().max().item() or 1.0
    worst = (actual - expected).abs().max().item() / scale
    check(worst <= bound, f"{name} is off by {worst:.3g} of the largest value, more than {bound:g}")


def device():
    prepare()
    check(torch.cuda.is_available(), "no device")
    properties = torch.cuda.get_device_properties(0)
    show("device", torch.cuda.device_count(), properties.name, properties.major, properties.minor)
    show("size", properties.total_memory, properties.multi_processor_count, properties.warp_size, properties.L2_cache_size)
    show("uuid", properties.uuid)
    free, total = torch.cuda.mem_get_info()
    check(0 < free <= total, f"{free} of {total} bytes free")
    show("total", total)
    if torch.cuda.device_count() > 1:
        show("peer", torch.cuda.can_device_access_peer(0, 1))


def matmul():
    prepare()
    for kind, bound in ((torch.float32, 1e-5), (torch.float64, 1e-13), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)):
        a = torch.randn(512, 768, dtype=torch.float64)
        b = torch.randn(768, 384, dtype=torch.float64)
        x, y = a.to(kind).to(DEVICE), b.to(kind).to(DEVICE)
        z = x @ y
        close(str(kind), z, a.to(kind).double() @ b.to(kind).double(), bound)
        show(f"sum {kind}", z.double().sum().item(), z.double().abs().max().item())
    batch = torch.bmm(torch.randn(16, 64, 32, device=DEVICE), torch.randn(16, 32, 48, device=DEVICE))
    show("bmm", batch.sum().item())
    torch.backends.cuda.matmul.allow_tf32 = True
    x = torch.randn(1024, 1024, device=DEVICE)
    show("tf32", (x @ x).double().norm().item())
    show("addmm", torch.addmm(torch.ones(8, 8, device=DEVICE), x[:8, :16], x[:16, :8]).sum().item())


def elementwise():
    prepare()
    x = torch.linspace(-3, 3, 1_000_003, device=DEVICE)
    for function in (torch.sin, torch.exp, torch.erf, torch.tanh, torch.lgamma):
        show(function.__name__, function(x[x != 0]).double().mean().item())
    show("sort", torch.sort(torch.randn(200_000, device=DEVICE)).values[::20_000].sum().item())
    show("topk", torch.topk(torch.rand(100_000, device=DEVICE), 5).values.sum().item())
    index = torch.randint(0, 1000, (50_000,), device=DEVICE)
    show("bincount", torch.bincount(index, minlength=1000).max().item(), index.sum().item())
    show("unique", torch.unique(index).numel())
    show("where", torch.nonzero(x > 2.5).numel())
    show("half sum", torch.ones(4096, dtype=torch.float16, device=DEVICE).sum().item())
    mask = torch.rand(1000, 1000, device=DEVICE) > 0.5
    show("masked", torch.masked_select(torch.ones(1000, 1000, device=DEVICE), mask).sum().item())


def convolution_adam():
    prepare()
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1, groups=2), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AvgPool2d(16), nn.Flatten(), nn.Linear(64, 10),
    ).to(DEVICE)
    images, labels = torch.randn(64, 3, 32, 32, device=DEVICE), torch.randint(0, 10, (64,), device=DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        show(f"loss {step}", loss.item())
    weight, x = torch.randn(8, 4, 3, 3), torch.randn(2, 4, 17, 19)
    close("conv2d", F.conv2d(x.to(DEVICE), weight.to(DEVICE), stride=2), F.conv2d(x.double(), weight.double(), stride=2), 1e-5)
    weight, x = torch.randn(4, 6, 3, 3, 3), torch.randn(2, 4, 7, 8, 9)
    close("conv_transpose3d", F.conv_transpose3d(x.to(DEVICE), weight.to(DEVICE)), F.conv_transpose3d(x.double(), weight.double()), 1e-5)


def recurrent():
    prepare()
    model = nn.LSTM(32, 64, num_layers=2, batch_first=True)
    x = torch.randn(8, 20, 32)
    expected, _ = model(x)
    y, (h, c) = model.to(DEVICE)(x.to(DEVICE))
    close("LSTM", y, expected, 1e-4)
    y.square().mean().backward()
    show("state", h.sum().item(), c.sum().item())
    show("gradient", sum(p.grad.double().norm().item() for p in model.parameters()))


def transformer_half():
    prepare()
    layer = nn.TransformerEncoderLayer(256, 8, 1024, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False).to(DEVICE).half().eval()
    x = torch.randn(8, 128, 256, device=DEVICE, dtype=torch.float16)
    with torch.inference_mode():
        y = model(x)
        close("half", y, model.float()(x.float()), 2e-2)
    show("output", y.double().mean().item(), y.double().std().item())


def attention():
    prepare()
    q, k, v = (torch.randn(4, 8, 256, 64, device=DEVICE, dtype=torch.bfloat16) for _ in range(3))
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        expected = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            with sdpa_kernel(backend):
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        except RuntimeError as error:
            # This build of PyTorch has none for this device: then on neither leg.
            show(backend.name, str(error).splitlines()[0])
            continue
        close(backend.name, y, expected, 2e-2)
        show(backend.name, y.double().abs().mean().item())


def cuda_graphs():
    prepare()
    model = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256)).to(DEVICE)
    x, target = torch.randn(64, 256, device=DEVICE), torch.randn(64, 256, device=DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, capturable=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            optimizer.zero_grad(set_to_none=True)
            F.mse_loss(model(x), target).backward()
            optimizer.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        loss = F.mse_loss(model(x), target)
        loss.backward()
        optimizer.step()
    for step in range(10):
        x.copy_(torch.full_like(x, step / 10))
        graph.replay()
        show(f"loss {step}", loss.item())
    # Random numbers in a graph go on from replay to replay.
    noise = torch.zeros(1000, device=DEVICE)
    with_noise = torch.cuda.CUDAGraph()
    with torch.cuda.graph(with_noise, pool=graph.pool()):
        noise.normal_()
    for _ in range(3):
        with_noise.replay()
        show("noise", noise.sum().item())
    function = torch.cuda.make_graphed_callables(nn.Linear(16, 16).to(DEVICE), (torch.randn(4, 16, device=DEVICE),))
    show("graphed callable", function(torch.ones(4, 16, device=DEVICE)).sum().item())
    graph.reset()


def compiled():
    prepare()

    @torch.compile
    def gelu_norm(x, scale):
        x = F.gelu(x) * scale
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5)

    x, scale = torch.randn(512, 1024, device=DEVICE), torch.randn(1024, device=DEVICE)
    y = gelu_norm(x, scale)
    expected = F.gelu(x) * scale
    expected = (expected - expected.mean(-1, keepdim=True)) / (expected.std(-1, keepdim=True) + 1e-5)
    close("compiled", y, expected, 1e-5)
    show("function", y.double().abs().sum().item())
    model = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.LayerNorm(256), nn.Linear(256, 10)).to(DEVICE)
    step = torch.compile(lambda a, b: F.cross_entropy(model(a), b))
    a, b = torch.randn(64, 128, device=DEVICE), torch.randint(0, 10, (64,), device=DEVICE)
    for _ in range(3):
        loss = step(a, b)
        loss.backward()
        show("loss", loss.item())
    show("gradient", sum(p.grad.double().norm().item() for p in model.parameters()))


def compiled_graphs():
    prepare()
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).to(DEVICE).eval()
    fast = torch.compile(model, mode="reduce-overhead")
    x = torch.randn(16, 64, device=DEVICE)
    with torch.inference_mode():
        for _ in range(4):
            y = fast(x)
        close("reduce-overhead", y, model(x), 1e-5)
        show("output", y.double().sum().item())


def fft():
    prepare()
    x = torch.randn(8, 3, 128, 96)
    close("fft2", torch.view_as_real(torch.fft.fft2(x.to(DEVICE))), torch.view_as_real(torch.fft.fft2(x.double())), 1e-5)
    for length in (1024, 1000, 1009):
        x = torch.randn(16, length)
        y = torch.fft.rfft(x.to(DEVICE))
        close(f"rfft {length}", torch.view_as_real(y), torch.view_as_real(torch.fft.rfft(x.double())), 1e-5)
        close(f"irfft {length}", torch.fft.irfft(y, n=length), x, 1e-5)
        show(f"rfft {length}", y.abs().double().sum().item())
    spectrum = torch.stft(torch.randn(16000, device=DEVICE), 400, window=torch.hann_window(400, device=DEVICE), return_complex=True)
    show("stft", spectrum.abs().double().sum().item())


def linear_algebra():
    prepare()
    a = torch.randn(200, 200, dtype=torch.float64)
    b = torch.randn(200, 7, dtype=torch.float64)
    symmetric = a @ a.T + 200 * torch.eye(200, dtype=torch.float64)
    close("solve", torch.linalg.solve(symmetric.to(DEVICE), b.to(DEVICE)), torch.linalg.solve(symmetric, b), 1e-10)
    close("cholesky", torch.linalg.cholesky(symmetric.to(DEVICE)), torch.linalg.cholesky(symmetric), 1e-12)
    values = torch.linalg.eigvalsh(symmetric.to(DEVICE))
    close("eigvalsh", values, torch.linalg.eigvalsh(symmetric), 1e-11)
    show("eigenvalues", values.min().item(), values.max().item())
    singular = torch.linalg.svdvals(a.to(DEVICE))
    close("svdvals", singular, torch.linalg.svdvals(a), 1e-11)
    show("singular values", singular.max().item())
    q, r = torch.linalg.qr(a.to(DEVICE))
    close("qr", q @ r, a, 1e-12)
    show("slogdet", torch.linalg.slogdet(symmetric.to(DEVICE)).logabsdet.item())
    batch = symmetric[:32, :32].repeat(50, 1, 1).to(DEVICE)
    close("batch", torch.linalg.inv(batch) @ batch, torch.eye(32, dtype=torch.float64).expand(50, 32, 32), 1e-10)
    sparse = torch.eye(100).to_sparse_csr().to(DEVICE)
    show("sparse", (sparse @ torch.ones(100, 3, device=DEVICE)).sum().item())


class Numbers(Dataset):
    def __len__(self):
        return 256

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.rand(3, 64, 64, generator=generator), index


def load(context, workers):
    prepare()
    # The device is in use before the workers are made.
    total = torch.zeros(1, dtype=torch.float64, device=DEVICE)
    seen = []
    loader = DataLoader(
        Numbers(), batch_size=32, num_workers=workers, pin_memory=True, multiprocessing_context=context, persistent_workers=workers > 0
    )
    for epoch in range(2):
        for images, indices in loader:
            check(images.is_pinned(), "a batch is not pinned")
            total += images.to(DEVICE, non_blocking=True).double().sum()
            seen += indices.tolist()
    check(seen == 2 * list(range(256)), "batches in a wrong order")
    show("total", total.item())


def loader_fork():
    load("fork", 3)


def loader_spawn():
    load("spawn", 2)


def loader_inline():
    load(None, 0)


def receive(queue, answers):
    """In another process: a tensor that was made elsewhere, by its IPC handle."""
    tensor = queue.get()
    answers.put(tensor.double().sum().item())
    tensor += 1
    torch.cuda.synchronize()
    answers.put("changed")
    queue.get()


def shared_tensors():
    prepare()
    import torch.multiprocessing as multiprocessing

    context = multiprocessing.get_context("spawn")
    queue, answers = context.Queue(), context.Queue()
    process = context.Process(target=receive, args=(queue, answers), daemon=True)
    process.start()
    tensor = torch.arange(1_000_000, device=DEVICE, dtype=torch.float32)
    torch.cuda.synchronize()
    queue.put(tensor)
    show("sum there", answers.get(timeout=60))
    show("then", answers.get(timeout=60))
    show("sum here", tensor.double().sum().item())
    queue.put("end")
    process.join(30)
    show("exit code", process.exitcode)


def streams_memory():
    prepare()
    streams = [torch.cuda.Stream(priority=-(i % 2)) for i in range(6)]
    events = []
    parts = []
    base = torch.arange(1 << 20, device=DEVICE, dtype=torch.float32)
    torch.cuda.synchronize()
    for index, stream in enumerate(streams):
        with torch.cuda.stream(stream):
            part = base * index
            for _ in range(20):
                part = part.sqrt().square()
            parts.append(part.sum())
            event = torch.cuda.Event(enable_timing=True)
            event.record(stream)
            events.append(event)
    torch.cuda.synchronize()
    show("parts", *[part.item() for part in parts])
    check(all(event.query() for event in events), "an event is not done after a synchronisation")
    check(events[0].elapsed_time(events[-1]) > -1000, "elapsed time")
    pinned = torch.empty(1 << 22, dtype=torch.uint8).pin_memory()
    pinned.random_(0, 256, generator=torch.Generator().manual_seed(3))
    on_device = pinned.to(DEVICE, non_blocking=True)
    back = torch.empty_like(pinned).pin_memory()
    back.copy_(on_device, non_blocking=True)
    torch.cuda.synchronize()
    check(torch.equal(back, pinned), "bytes were changed on their way")
    before = torch.cuda.memory_reserved()
    blocks = [torch.empty(10 << 20, dtype=torch.uint8, device=DEVICE) for _ in range(20)]
    show("allocated", torch.cuda.memory_allocated() >= 200 << 20, torch.cuda.memory_reserved() > before)
    del blocks
    torch.cuda.empty_cache()
    show("released", torch.cuda.memory_reserved() <= before)
    try:
        torch.empty(1 << 42, dtype=torch.uint8, device=DEVICE)
        show("too much", "allocated")
    except torch.cuda.OutOfMemoryError:
        show("too much", "OutOfMemoryError")
    show("after", (base + 1).double().sum().item())


def device_assert():
    """A fault in a kernel: the error, then the same error again for whatever follows."""
    prepare()
    x = torch.zeros(10, device=DEVICE)
    index = torch.tensor([3, 12], device=DEVICE)
    for _ in range(2):
        try:
            x[index].sum().item()
            show("outcome", "no error")
        except (torch.AcceleratorError if hasattr(torch, "AcceleratorError") else RuntimeError) as error:
            show("outcome", str(error).splitlines()[0])
    # The libraries' own ends may fail after that, natively too.
    leave()


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self, vocabulary=64, width=128, heads=4, layers=4, length=64):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.blocks(x)))


def gpt_bf16():
    prepare()
    # A text with rules to be learnt: each letter follows from the two before it.
    text = [1, 2]
    for place in range(20_000):
        text.append((3 * text[-1] + 5 * text[-2] + (place % 7 == 0)) % 64)
    text = torch.tensor(text, device=DEVICE)
    model = Gpt().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=200)
    generator = torch.Generator().manual_seed(11)
    losses = []
    for step in range(200):
        starts = torch.randint(0, len(text) - 65, (32,), generator=generator)
        rows = starts[:, None] + torch.arange(65)
        batch = text[rows.to(DEVICE)]
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            logits = model(batch[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    losses = torch.stack(losses).double().cpu().tolist()
    # Differences in the last bit grow from step to step. On the same device with the same libraries there are none.
    print("# rtol=1e-2 atol=1e-3")
    for step in range(0, 200, 5):
        show(f"loss {step}", losses[step])
    show("loss 199", losses[199])
    check(losses[-1] < 0.7 * losses[0], f"nothing was learnt: {losses[0]:.3f} to {losses[-1]:.3f}")


SECTIONS = [
    device, matmul, elementwise, convolution_adam, recurrent, transformer_half, attention, cuda_graphs, gpt_bf16, fft, linear_algebra, streams_memory,
    loader_inline, loader_fork, loader_spawn, shared_tensors, device_assert, compiled, compiled_graphs,
]

if __name__ == "__main__":
    # Python starts spawned workers with this file as a module: only the program itself runs sections.
    run(SECTIONS, rtol=1e-4, atol=1e-6, isolate=True, limit_s=60, limits={"compiled": 120, "compiled_graphs": 120})
