"""What is counted in a compiled step, and how a profile's time is shared out."""

import json

import pytest

from benchmarks import compile_step, profile, standard_case, step_cases
from benchmarks.profile import Event

PROGRAM = """
HloModule m
%inner (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %exp.1 = f32[4]{0} exponential(%p)
}

%body (s: (f32[4], bf16[2,3])) -> (f32[4], bf16[2,3]) {
  %s = (f32[4]{0}, bf16[2,3]{1,0}) parameter(0)
  %a = f32[4]{0} get-tuple-element(%s), index=0
  %b = bf16[2,3]{1,0} get-tuple-element(%s), index=1
  %fusion.1 = f32[4]{0} fusion(%a, %b), kind=kLoop, calls=%anything, metadata={op_name="jit(f)/g"}
  %while.2 = f32[4]{0} while(%fusion.1), condition=%c, body=%inner, backend_config=FIVE
  ROOT %t = (f32[4]{0}, bf16[2,3]{1,0}) tuple(%while.2, %b)
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  ROOT %while.9 = (f32[4]{0}, bf16[2,3]{1,0}) while(%x), condition=%c, body=%body
}
""".replace("FIVE", '{"known_trip_count":{"n":"5"}}')


def test_a_turn_of_the_longest_loop_is_counted_with_the_loops_inside_it():
    # The fusion reads 16 + 12 bytes and writes 16; the exponential, five times, 16 and 16.
    assert compile_step.cost(PROGRAM) == (1 + 5, 44 + 5 * 32)


def test_steps_lower_for_both_platforms(tmp_path):
    path = tmp_path / "rows.json"
    flags = ["--smoke", "--json", str(path)]
    compile_step.main(compile_step.parser().parse_args(flags))
    rows = json.loads(path.read_text())["rows"]
    assert [row["target"] for row in rows] == ["tpu", "cuda"] * 2
    assert [row["tables"] for row in rows[1:3]] == ["dense", "rowwise_adagrad"]


def test_the_stages_of_rerankers_are_cases_too():
    assert step_cases.chosen([], step_cases.CASES) == list(step_cases.CASES)
    found = step_cases.chosen(["dlcm", "hetcomp"], step_cases.SMOKE_CASES)
    works = [case.about()["work"] for case in found]
    assert works[:2] == ["dlcm, train", "dlcm, DNR phase 2"]
    assert works[2] == f"hetcomp, {found[2].stage.name}"
    assert found[2].stage.groups
    text = step_cases.trace(found[0], None, **standard_case.TINY).lower().as_text()
    assert "tensor<8x50xf32>" in text


def test_compiling_a_step_without_a_compiler_says_what_to_do():
    with pytest.raises(SystemExit, match="--tpu and --cuda"):
        compile_step.main(compile_step.parser().parse_args([]))


def test_operations_have_the_names_of_what_they_compute():
    names = profile.operation_names(PROGRAM)
    assert names["fusion.1"] == "jit(f)/g"
    assert names["exp.1"] == ""


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (
            "jit(run)/while/body/closed_call/jvp(PRM.encode)/list_encoder/layer_1/Dense_0/dot",
            ("list_encoder > Dense", "forward"),
        ),
        (
            "jit(run)/cond/branch_0_fun/transpose(jvp(PRM.decode))/head/mul;other/name",
            ("head", "backward"),
        ),
        ("jit(run)/while/body/closed_call/reduce_sum", (profile.OUTSIDE, "")),
        ("", (profile.OUTSIDE, "")),
    ],
)
def test_a_name_belongs_to_a_part_of_the_model(name, part):
    assert profile.part_of(name) == part


def test_an_operation_is_not_charged_for_those_inside_it():
    events = [Event("loop", 0, 100), Event("a", 10, 30), Event("b", 40, 90), Event("c", 120, 130)]
    found = dict(profile.own_seconds(events))
    assert found == {"loop": 30e-9, "a": 20e-9, "b": 50e-9, "c": 10e-9}


def test_busy_counts_overlapping_threads_once():
    threads = [[Event("a", 0, 40), Event("b", 60, 80)], [Event("c", 20, 50), Event("d", 95, 100)]]
    assert profile.busy(threads) == pytest.approx(0.75)


def test_a_profile_shares_all_the_time_out(tmp_path):
    path = tmp_path / "rows.json"
    profile.main(profile.parser().parse_args(["--smoke", "--json", str(path)]))
    rows = json.loads(path.read_text())["rows"]
    assert sum(row["% of all"] for row in rows) == pytest.approx(100)
    parts = {(row["part"], row["pass"]) for row in rows}
    assert {("list_encoder > Attention", way) for way in ("forward", "backward")} <= parts
    assert (profile.OUTSIDE, "") in parts
