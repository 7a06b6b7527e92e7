"""Smoke modes of the kernel and sampler benchmarks, and that their JSON holds what they print."""

import json

import pytest

from benchmarks import compile_kernels, compilers, harness, kernel, sampler

CASES = {
    "kernel": (kernel, harness.parser("kernel")),
    "sampler": (sampler, harness.parser("sampler")),
    "compile_kernels": (compile_kernels, compilers.parser("compile_kernels")),
}


@pytest.fixture(scope="module", params=CASES)
def rows(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "rows.json"
    module, parser = CASES[request.param]
    module.main(parser.parse_args(["--smoke", "--json", str(path)]))
    return request.param, json.loads(path.read_text())


def test_smoke_mode_measures_every_case(rows):
    name, content = rows
    assert content["environment"]["packages"]["jax"]
    seen = {tuple(str(row[key]) for key in list(row)[:2]) for row in content["rows"]}
    expected = {
        "kernel": {(str(n), method) for n in kernel.SMOKE_SIZES for method in kernel.LARGEST},
        "sampler": {
            ("Beta(2.3, 0.7)", s)
            for s in (
                "jax.random.beta",
                "given shapes",
                "learned shapes",
                "Kumaraswamy",
                "uniform",
            )
        },
        "compile_kernels": {
            (target, program)
            for target in ("tpu", "cuda")
            for program in ("forward", "gradient", "forward, 5 seeds")
        },
    }
    assert seen == expected[name]


def test_errors_beside_the_times_are_those_of_equal_work(rows):
    """A benchmark that compared different things would show it in its own columns."""
    name, content = rows
    for row in content["rows"]:
        if name == "kernel":
            assert row["1 - cosine"] < 1e-4
            assert abs(row["value error"]) < 5e-3
        if name == "sampler" and row["sampler"] in ("given shapes", "learned shapes"):
            assert row["KS"] < 1.95 / 1_000**0.5


def test_compiling_without_a_compiler_says_what_to_do():
    with pytest.raises(SystemExit, match="--tpu and --cuda"):
        compile_kernels.main(compilers.parser("").parse_args([]))
