"""Time, memory and error of L_x, the KL of two kernel densities, against the number of scores.

    python -m benchmarks.kernel

n generated against n observed scores; 25,600 are 512 requests of 50 candidates. `value` computes
L_x, `gradient` also its gradient in the generated scores: what a training step pays. `exact` sums
all pairs in blocks; `binned` is the default; `pallas` is the hand-written kernel, interpreted on
CPU; `materialised` is the formula as one writes it down. Errors are against `exact` in float64 on
the CPU. `/ limit` is the time over the least possible: the exponentials of all pairs at the
device's own rate, for `binned` its bytes at the device's bandwidth; both rates are measured first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from dnr_jax.divergences import kernels
from dnr_jax.types import Array

BANDWIDTH = 0.05
# Methods and the most scores each is run with. On a CPU all pairs of 25,600 scores take a second,
# those of 10^6 an hour; stored as arrays, the pairs of 25,600 take 16 GB.
LARGEST = {"materialised": 6_400, "exact": 25_600, "pallas": 25_600, "binned": 1_638_400}
LARGEST_ON_ACCELERATOR = LARGEST | {"materialised": 25_600}
SIZES = (3_200, 6_400, 12_800, 25_600, 204_800, 1_638_400)
SMOKE_SIZES = (300,)
# Exponentials per pair, for two densities: value alone, and with gradient (three more row sums).
PASSES = {"value": 2, "gradient": 5}
# Bytes per pair of scores that must be read and, for the gradient, written.
BYTES = {"value": 8, "gradient": 12}


class Rates(NamedTuple):
    """The device's peak rates: float32 exponentials and bytes of memory per second."""

    exponentials: float
    bytes: float


def materialised(points: Array, samples: Array, weights: Array, *, bandwidth: float) -> Array:
    """Sum all pairs in the obvious way, with an n x m array."""
    gap = (points[:, None] - samples) / bandwidth
    return jax.nn.logsumexp(kernels.safe_log(weights) - 0.5 * gap**2, axis=1)


def kl(log_sums: kernels.LogDensity) -> Callable[[Array, Array], Array]:
    """Make L_x of two equally weighted samples from the sums of one method."""

    def distance(generated: Array, observed: Array) -> Array:
        weights = jnp.full(generated.shape, 1.0 / generated.shape[0])
        own = log_sums(generated, generated, weights, bandwidth=BANDWIDTH)
        return jnp.mean(own - log_sums(generated, observed, weights, bandwidth=BANDWIDTH))

    return distance


def make(n: int) -> tuple[Array, Array]:
    """Draw generated scores from Beta(0.5, 0.5) and observed ones from Beta(2, 5)."""
    random = np.random.default_rng(0)
    laws = ((0.5, 0.5), (2.0, 5.0))
    generated, observed = (jnp.asarray(random.beta(*law, n), jnp.float32) for law in laws)
    return generated, observed


def rates(repeats: int) -> Rates:
    """Measure the peak rates: sums of exponentials without memory reads, and a copy."""
    rows, columns = (128, 25_600) if on_cpu() else (8192, 65_536)
    first, second = jnp.linspace(0.0, 5.0, rows), jnp.linspace(0.0, 5.0, columns)
    sums = jax.jit(lambda a, b: jnp.exp(-(a[:, None] + b)).sum(1))
    exponentials = harness.time_calls(lambda: sums(first, second), repeats=repeats).best
    block = jnp.zeros(2**26)  # 256 MiB, beyond any cache
    copy = jax.jit(lambda x: x + 1.0)
    seconds = harness.time_calls(lambda: copy(block), repeats=repeats).best
    return Rates(rows * columns / exponentials, 2 * block.nbytes / seconds)


def on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def methods(name: str) -> dict[str, Callable[..., Any]]:
    """Return the two forms of a method."""
    distance = kl({"materialised": materialised, **kernels.LOG_DENSITIES}[name])
    return {"value": distance, "gradient": jax.value_and_grad(distance)}


def compile_both(both: dict[str, Callable[..., Any]], n: int) -> dict[str, Any]:
    """Compile both forms for n scores."""
    shape = jax.ShapeDtypeStruct((n,), jnp.float32)
    return {form: jax.jit(f).lower(shape, shape).compile() for form, f in both.items()}


def measure(n: int, *, repeats: int, best: Rates) -> list[dict[str, Any]]:
    """Time and compare all methods that are run with n scores, in turn."""
    arrays, largest = make(n), LARGEST if on_cpu() else LARGEST_ON_ACCELERATOR
    forms = {name: methods(name) for name, most in largest.items() if n <= most}
    seconds = time_forms(forms, arrays, repeats=repeats)
    exact = oracle(*arrays) if "exact" in forms else None
    rows = []
    for name, both in forms.items():
        programs = compile_both(both, n)
        sizes = {k: p.memory_analysis().temp_size_in_bytes / 1e6 for k, p in programs.items()}
        rows.append(
            {
                "n": n,
                "method": name,
                **{f"{form} ms": 1e3 * seconds[name, form] for form in both},
                **{f"{form} MB": size for form, size in sizes.items()},
                **{
                    f"{form} / limit": over_limit(name, form, seconds[name, form], n, best)
                    for form in both
                },
                **errors(programs["gradient"](*arrays), exact),
            }
        )
    return rows


def time_forms(
    forms: dict[str, dict[str, Callable[..., Any]]], arrays: tuple[Array, Array], *, repeats: int
) -> dict[tuple[str, str], float]:
    """Time all methods and forms in turn: seconds by (method, form).

    On an accelerator a program holds many of them, to be long beside its own start.
    """
    copies = 1 if on_cpu() else 20
    stacked = jax.tree.map(lambda a: jnp.stack([jnp.roll(a, i) for i in range(copies)]), arrays)
    calls = {
        (name, form): partial(_several(function), stacked)
        for name, both in forms.items()
        for form, function in both.items()
    }
    timings = harness.time_in_turn(calls, repeats=repeats)
    return {key: timing.best / copies for key, timing in timings.items()}


def _several(function: Callable[..., Any]) -> Callable[[tuple[Array, Array]], Any]:
    return jax.jit(lambda pairs: jax.lax.map(lambda pair: function(*pair), pairs))


def over_limit(name: str, form: str, seconds: float, n: int, best: Rates) -> float:
    """Divide the time taken by the least time that the device allows."""
    if name == "binned":
        return seconds * best.bytes / (BYTES[form] * n)
    return seconds * best.exponentials / (PASSES[form] * n**2)


def oracle(generated: Array, observed: Array) -> Any:
    """Compute L_x and its gradient in float64 on the CPU."""
    arrays = [np.asarray(a, np.float64) for a in (generated, observed)]
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        return jax.device_get(jax.jit(jax.value_and_grad(kl(kernels.exact)))(*arrays))


def errors(found: Any, exact: Any) -> dict[str, Any]:
    """Compare a value and its gradient with the exact ones."""
    if exact is None:
        return {"value error": "", "1 - cosine": "", "gradient error": ""}
    (value, slope), (value_exact, slope_exact) = (
        (float(v), np.asarray(s, np.float64)) for v, s in (found, exact)
    )
    norm = np.linalg.norm
    return {
        "value error": value - value_exact,
        "1 - cosine": max(0.0, 1 - slope @ slope_exact / norm(slope) / norm(slope_exact)),
        "gradient error": norm(slope - slope_exact) / norm(slope_exact),
    }


def density_error(n: int) -> str:
    """Compare binned with exact log-densities point by point, in nats."""
    points, samples = make(n)
    weights = jnp.full(samples.shape, 1.0 / samples.shape[0])
    exact, binned = (
        kernels.log_density(points, samples, weights, bandwidth=BANDWIDTH, method=m)
        for m in ("exact", "binned")
    )
    error = np.abs(exact - binned)
    return (
        f"log p by binning at {n} points: off by {error.max():.1e} nats at most, "
        f"{np.median(error):.1e} at the median; log p there is {exact.min():.0f} to "
        f"{exact.max():.1f}"
    )


def main(arguments: argparse.Namespace) -> None:
    """Measure, fit how the cost grows, print."""
    sizes, repeats, rounds = (SMOKE_SIZES, 1, 1) if arguments.smoke else (SIZES, 3, 60)
    best = rates(rounds)
    rows = [row for n in sizes for row in measure(n, repeats=repeats, best=best)]
    harness.report("L_x against the number of scores", rows, arguments.json)
    print(f"\nlimits: {best.exponentials / 1e9:.4g} 10^9 exponentials a second, ", end="")
    print(f"{best.bytes / 1e9:.4g} GB/s; {density_error(sizes[0])}")
    for name in LARGEST if len(sizes) > 1 else ():
        own = [row for row in rows if row["method"] == name][-3:]
        n, ms = (np.log([row[key] for row in own]) for key in ("n", "gradient ms"))
        print(f"{name}: time with gradient grows as n^{np.polyfit(n, ms, 1)[0]:.2f}")


if __name__ == "__main__":
    main(harness.parser(__doc__).parse_args())
