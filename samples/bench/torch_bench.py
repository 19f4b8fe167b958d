"""PyTorch figures: transformer training step and inference, a ResNet-like step, decoding with CUDA graphs, small operations.

Arguments are the groups to run (default: all): train infer resnet decode small loader. Prints one JSON object per figure.
"""

import json
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

DEVICE = "cuda"


def figure(name, value, unit, better):
    print(json.dumps({"name": "torch " + name, "value": value, "unit": unit, "better": better}), flush=True)


def median_rate(step, per_step, budget_s=1.5, warm_up=5, batch=5):
    """What `step` gets done in a second: the median over batches of steps, each with one synchronisation."""
    for _ in range(warm_up):
        step()
    torch.cuda.synchronize()
    rates = []
    end = time.perf_counter() + budget_s
    while len(rates) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(batch):
            step()
        torch.cuda.synchronize()
        rates.append(batch * per_step / (time.perf_counter() - begin))
    return statistics.median(rates)


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


class Transformer(nn.Module):
    def __init__(self, vocabulary=8192, width=512, heads=8, layers=6, length=256):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def train():
    model = Transformer().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    tokens = torch.randint(0, 8192, (16, 257), device=DEVICE)

    def step():
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = model(tokens[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    figure("transformer training step", median_rate(step, 1), "steps/s", "higher")


def infer():
    model = Transformer().to(DEVICE).to(torch.bfloat16).eval()
    tokens = torch.randint(0, 8192, (16, 256), device=DEVICE)
    one = tokens[:1]
    with torch.inference_mode():
        figure("transformer inference, batch 16", median_rate(lambda: model(tokens), 16), "sequences/s", "higher")

        def answer():
            # As a server does: in from pageable memory, the answer out to the CPU.
            model(host.to(DEVICE))[:, -1].argmax(-1).cpu()

        host = one.cpu()
        figure("transformer inference, one request", median_rate(answer, 1), "requests/s", "higher")


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.short = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.short(x))


def resnet():
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for inputs, outputs, stride in [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]:
        layers += [Residual(inputs, outputs, stride), Residual(outputs, outputs, 1)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    model = nn.Sequential(*layers).to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images = torch.randn(32, 3, 160, 160).pin_memory()
    labels = torch.randint(0, 1000, (32,), device=DEVICE)

    def step():
        batch = images.to(DEVICE, non_blocking=True, memory_format=torch.channels_last)
        with torch.autocast("cuda", dtype=torch.float16):
            loss = F.cross_entropy(model(batch), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    figure("ResNet-like training step", median_rate(step, 32), "images/s", "higher")


def decode():
    """One token after the other: each step is one CUDA graph, its token is read back by the CPU now and then."""
    width, heads, length, layers, batch = 1024, 16, 512, 8, 8
    dtype = torch.bfloat16
    weights = [
        [torch.randn(a, b, device=DEVICE, dtype=dtype) * 0.02 for a, b in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))]
        for _ in range(layers)
    ]
    table = torch.randn(4096, width, device=DEVICE, dtype=dtype) * 0.02
    keys = torch.zeros(layers, batch, heads, length, width // heads, device=DEVICE, dtype=dtype)
    values = torch.zeros_like(keys)
    token = torch.zeros(batch, dtype=torch.long, device=DEVICE)
    place = torch.zeros(1, dtype=torch.long, device=DEVICE)
    places = torch.arange(length, device=DEVICE)

    def step():
        x = table[token]
        seen = (places <= place).view(1, 1, 1, length)
        for layer, (qkv, out, up, down) in enumerate(weights):
            q, k, v = (F.layer_norm(x, (width,)) @ qkv).view(batch, 3, heads, 1, -1).unbind(1)
            keys[layer].index_copy_(2, place, k)
            values[layer].index_copy_(2, place, v)
            y = F.scaled_dot_product_attention(q, keys[layer], values[layer], attn_mask=seen)
            x = x + y.reshape(batch, width) @ out
            x = x + F.gelu(F.layer_norm(x, (width,)) @ up) @ down
        token.copy_((x @ table.T).argmax(-1))
        place.copy_((place + 1) % length)

    with torch.inference_mode():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        figure("decode with CUDA graphs", median_rate(graph.replay, batch, batch=50), "tokens/s", "higher")

        def to_host():
            graph.replay()
            token.cpu()

        figure("decode, each token read back", median_rate(to_host, batch, budget_s=1, batch=20), "tokens/s", "higher")
        figure("decode without graphs", median_rate(step, batch, budget_s=1), "tokens/s", "higher")


def small():
    """Operations that the CPU's part dominates."""
    a = torch.randn(64, 64, device=DEVICE)

    def chain():
        x = a
        for _ in range(100):
            x = torch.relu(x + a)

    figure("small operations", median_rate(chain, 200, budget_s=0.7), "operations/s", "higher")
    figure("item()", median_rate(lambda: a[0, 0].item(), 1, budget_s=0.5, batch=50), "calls/s", "higher")
    big = torch.randn(4096, 4096, device=DEVICE, dtype=torch.bfloat16)
    figure("bf16 matmul 4096", median_rate(lambda: big @ big, 2 * 4096**3 / 1e12, budget_s=0.7), "Tflop/s", "higher")
    pageable, pinned = torch.randn(16 << 20), torch.randn(16 << 20).pin_memory()
    figure("64 MiB pageable to the GPU", median_rate(lambda: pageable.to(DEVICE), 2**26 / 1e9, 0.5, 2, 1), "GB/s", "higher")
    figure("64 MiB pinned to the GPU", median_rate(lambda: pinned.to(DEVICE, non_blocking=True), 2**26 / 1e9, 0.5, 2), "GB/s", "higher")
    there = pageable.to(DEVICE)
    figure("64 MiB from the GPU", median_rate(lambda: there.cpu(), 2**26 / 1e9, 0.5, 2, 1), "GB/s", "higher")


def main():
    groups = {"train": train, "decode": decode, "infer": infer, "resnet": resnet, "small": small}
    code = 0
    begin = time.perf_counter()
    torch.zeros(1, device=DEVICE)
    torch.cuda.synchronize()
    figure("first tensor on the GPU", (time.perf_counter() - begin) * 1e3, "ms", "lower")
    for name in sys.argv[1:] or groups:
        torch.manual_seed(1)
        try:
            groups[name]()
        except Exception as error:  # The other groups may work.
            code = 1
            text = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            print(json.dumps({"name": f"torch {name}", "error": text}), flush=True)
        torch.cuda.empty_cache()
    return code


if __name__ == "__main__":
    sys.exit(main())
