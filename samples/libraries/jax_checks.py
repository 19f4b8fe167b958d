"""JAX: XLA's own kernels, cuBLAS, cuDNN, cuFFT, cuSOLVER, host callbacks."""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
# The same kernels in every run: nothing is chosen by measuring.
os.environ.setdefault("XLA_FLAGS", "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0")

import jax
import jax.numpy as jnp
import numpy as np

from sections import check, run, show

jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_enable_x64", True)


def close(name, actual, expected, bound):
    actual, expected = np.asarray(actual), np.asarray(expected)
    worst = np.abs(actual - expected).max() / (np.abs(expected).max() or 1.0)
    check(worst <= bound, f"{name} is off by {worst:.3g} of the largest value")


def random(*shape):
    return np.random.default_rng(5).standard_normal(shape)


def device():
    show("backend", jax.default_backend(), len(jax.devices()), jax.devices()[0].device_kind)
    check(jax.default_backend() == "gpu", "XLA found no GPU")


def arithmetic():
    a, b = random(256, 300), random(300, 128)
    close("matmul", jnp.asarray(a) @ jnp.asarray(b), a @ b, 1e-12)
    close("single", jnp.asarray(a, jnp.float32) @ jnp.asarray(b, jnp.float32), a @ b, 1e-5)
    half = jnp.asarray(a, jnp.bfloat16) @ jnp.asarray(b, jnp.bfloat16)
    show("bfloat16", float(half.astype(jnp.float64).sum()))
    function = jax.jit(lambda x: jnp.tanh(x) * jnp.exp(-x * x) + jnp.sort(x))
    x = random(100_000)
    close("jit", function(x), np.tanh(x) * np.exp(-x * x) + np.sort(x), 1e-12)
    show("reductions", float(jnp.sum(x)), float(jnp.std(x)), int(jnp.argmax(x)), float(jnp.cumsum(x)[-1]))


def training():
    def loss(parameters, x, y):
        for weight, bias in parameters[:-1]:
            x = jax.nn.gelu(x @ weight + bias)
        weight, bias = parameters[-1]
        return jnp.mean((x @ weight + bias - y) ** 2)

    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    sizes = [16, 64, 64, 1]
    parameters = [
        (jax.random.normal(key, (m, n), jnp.float32) / np.sqrt(m), jnp.zeros(n, jnp.float32))
        for key, m, n in zip(keys, sizes, sizes[1:])
    ]
    x = jax.random.normal(jax.random.PRNGKey(1), (256, 16), jnp.float32)
    y = jnp.sin(x[:, :1]) + x[:, 1:2] ** 2

    @jax.jit
    def step(parameters):
        value, gradient = jax.value_and_grad(loss)(parameters, x, y)
        return value, jax.tree.map(lambda p, g: p - 0.05 * g, parameters, gradient)

    for index in range(50):
        value, parameters = step(parameters)
        if index % 5 == 0:
            show(f"loss {index}", float(value))


def convolution():
    x, weight = random(4, 3, 32, 32).astype(np.float32), random(8, 3, 3, 3).astype(np.float32)

    @jax.jit
    def total(x, weight):
        return jnp.sum(jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME") ** 2)

    value, gradient = jax.value_and_grad(total, argnums=1)(x, weight)
    show("value", float(value))
    show("gradient", float(jnp.abs(gradient).sum()))


def fft_linear_algebra():
    x = random(16, 240)
    close("fft", jnp.fft.fft2(x), np.fft.fft2(x), 1e-12)
    a = random(120, 120)
    symmetric = a @ a.T + 100 * np.eye(120)
    close("solve", jnp.linalg.solve(symmetric, x.T[:120]), np.linalg.solve(symmetric, x.T[:120]), 1e-10)
    close("eigh", jnp.linalg.eigh(symmetric)[0], np.linalg.eigvalsh(symmetric), 1e-11)
    close("svd", jnp.linalg.svd(a, compute_uv=False), np.linalg.svd(a, compute_uv=False), 1e-11)
    close("cholesky", jnp.linalg.cholesky(symmetric), np.linalg.cholesky(symmetric), 1e-11)
    q, r = jnp.linalg.qr(a)
    close("qr", q @ r, a, 1e-11)


def control_flow():
    def body(carry, x):
        carry = carry * 0.9 + x
        return carry, carry

    last, all_of_them = jax.lax.scan(body, jnp.zeros(100), jnp.asarray(random(200, 100)))
    show("scan", float(last.sum()), float(all_of_them.sum()))
    show("while", int(jax.lax.while_loop(lambda n: n < 1000, lambda n: n * 3 + 1, 1)))
    show("cond", float(jax.jit(lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x))(jnp.ones(3)).sum()))
    show("vmap", float(jax.vmap(lambda v: v @ v)(jnp.asarray(random(50, 20))).sum()))
    show("random", float(jax.random.normal(jax.random.key(3), (10_000,)).sum()))


def callback():
    def on_host(x):
        return np.asarray(x) * 2

    @jax.jit
    def function(x):
        y = jax.pure_callback(on_host, jax.ShapeDtypeStruct(x.shape, x.dtype), x + 1)
        return y.sum()

    show("callback", float(function(jnp.arange(1000.0))))


def transfers():
    source = random(1 << 20)
    back = jax.device_get(jax.device_put(source))
    check(bool((back == source).all()), "bytes were changed on their way")
    arrays = [jax.device_put(np.full(1000, i)) for i in range(100)]
    show("many", int(sum(int(array.sum()) for array in arrays)))
    donated = jax.jit(lambda x: x + 1, donate_argnums=0)(jnp.zeros(1000))
    show("donated", float(donated.sum()))


if __name__ == "__main__":
    run(
        [device, arithmetic, training, convolution, fft_linear_algebra, control_flow, callback, transfers],
        rtol=1e-5,
        atol=1e-7,
    )
