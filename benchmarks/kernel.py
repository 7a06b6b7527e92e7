"""Time, memory and error of L_x, the KL of two kernel densities, against the number of scores.

    python -m benchmarks.kernel

n generated against n observed scores; 25,600 are 512 requests of 50 candidates. `value` computes
L_x, `gradient` also its gradient in the generated scores: what a training step pays. `exact` sums
all pairs in blocks and is the oracle of the errors; `binned` is the default; `pallas` is the
hand-written kernel, interpreted on CPU; `materialised` is the formula as one writes it down.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from dnr_jax.divergences import kernels
from dnr_jax.types import Array

BANDWIDTH = 0.05
# Methods and the most scores each is run with: all pairs of 25,600 take a second, of 10^6 an hour.
LARGEST = {"materialised": 6_400, "exact": 25_600, "pallas": 25_600, "binned": 1_638_400}
SIZES = (3_200, 6_400, 12_800, 25_600, 204_800, 1_638_400)
SMOKE_SIZES = (300,)
# Exponentials a pair, two densities: of the value, and with its gradient (three row sums more).
PASSES = {"value": 2, "gradient": 5}


def materialised(points: Array, samples: Array, weights: Array, *, bandwidth: float) -> Array:
    """Sum all pairs as one writes it down: an n x m array."""
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


def exponentials_a_second(repeats: int) -> float:
    """Measure the machine's best rate of float32 exponentials, in one large sum."""
    x = -jnp.linspace(0.0, 10.0, 128 * 25_600).reshape(128, -1)
    call = jax.jit(lambda x: jnp.exp(x).sum(1))
    return x.size / harness.time_calls(lambda: call(x), repeats=repeats).best


def compile_both(name: str, n: int) -> dict[str, Any]:
    """Compile value and gradient of a method for n scores."""
    methods = {"materialised": materialised, **kernels.LOG_DENSITIES}
    distance, shape = kl(methods[name]), jax.ShapeDtypeStruct((n,), jnp.float32)
    forms = {"value": distance, "gradient": jax.value_and_grad(distance)}
    return {k: jax.jit(f).lower(shape, shape).compile() for k, f in forms.items()}


def measure(n: int, *, repeats: int, rate: float) -> list[dict[str, Any]]:
    """Time and compare all methods that are run with n scores, in turn."""
    arrays = make(n)
    programs = {name: compile_both(name, n) for name, most in LARGEST.items() if n <= most}
    calls = {
        f"{name} {form}": lambda f=f: f(*arrays)
        for name, both in programs.items()
        for form, f in both.items()
    }
    seconds = harness.time_in_turn(calls, repeats=repeats)
    exact = programs["exact"]["gradient"](*arrays) if "exact" in programs else None
    return [
        {
            "n": n,
            "method": name,
            **{f"{k} ms": 1e3 * seconds[f"{name} {k}"].best for k in both},
            **{f"{k} MB": f.memory_analysis().temp_size_in_bytes / 1e6 for k, f in both.items()},
            **limits(name, {k: seconds[f"{name} {k}"].best for k in both}, n, rate),
            **errors(both["gradient"](*arrays), exact),
        }
        for name, both in programs.items()
    ]


def limits(name: str, seconds: dict[str, float], n: int, rate: float) -> dict[str, Any]:
    """Compare all pairs' exponentials at the machine's own rate with the time taken."""
    if name == "binned":
        return {f"{k} / limit": "" for k in seconds}
    return {f"{k} / limit": s * rate / (PASSES[k] * n * n) for k, s in seconds.items()}


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
    sizes, repeats = (SMOKE_SIZES, 1) if arguments.smoke else (SIZES, 3)
    rate = exponentials_a_second(20 * repeats)
    rows = [row for n in sizes for row in measure(n, repeats=repeats, rate=rate)]
    harness.report("L_x against the number of scores", rows, arguments.json)
    print(f"\nlimit: {rate / 1e9:.2f} 10^9 exponentials a second; {density_error(sizes[0])}")
    for name in LARGEST if len(sizes) > 1 else ():
        own = [row for row in rows if row["method"] == name][-3:]
        n, ms = (np.log([row[key] for row in own]) for key in ("n", "gradient ms"))
        print(f"{name}: time with gradient grows as n^{np.polyfit(n, ms, 1)[0]:.2f}")


if __name__ == "__main__":
    main(harness.parser(__doc__).parse_args())
