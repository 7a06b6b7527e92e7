"""Settings: what is not of the right type or out of range dies with its knob's name."""

import math
from dataclasses import dataclass

import pytest

from dnr_jax.settings import Settings, defaults, knob, plain, read, unknown_knob


@dataclass(frozen=True, kw_only=True)
class Inner(Settings):
    rate: float = knob(1e-3, "step size", above=0)


@dataclass(frozen=True, kw_only=True)
class Outer(Settings):
    beam: int = knob(4, "lists kept", at_least=1)
    share: float = knob(0.5, "share of noise", above=0, at_most=1)
    kind: str = knob("beta", "family", one_of=("beta", "gaussian"))
    factors: tuple[float, ...] = knob((1.0,), "trials", above=0)
    causal: bool = knob(False, "a candidate sees those before it")
    inner: Inner = Inner()

    def check(self):
        if self.beam > 100 * self.share:
            raise ValueError(f"beam is {self.beam}: at most 100 x share {self.share}")


@dataclass(frozen=True, kw_only=True)
class Derived(Outer):
    draws: int = knob(8, "draws", at_least=1)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"beam": 0}, "place.beam is 0: it must be 1 or more"),
        ({"beam": 2.0}, "place.beam is 2.0: it must be of type int"),
        ({"beam": True}, "place.beam is True: it must be of type int"),
        ({"beam": 2**31, "share": 0.5}, "place.beam is 2147483648: it must be at most 2147483647"),
        ({"beam": 60}, "place.beam is 60: at most 100 x share 0.5"),
        ({"share": 0.0}, "place.share is 0.0: it must be above 0 and at most 1"),
        ({"share": math.nan}, "place.share is nan: it must be above 0 and at most 1"),
        ({"inner": {"rate": math.inf}}, "place.inner.rate is inf: it must be above 0"),
        ({"kind": "bta"}, "place.kind is 'bta': it must be one of beta, gaussian"),
        ({"factors": (1.0, -1.0)}, r"place.factors is \(1.0, -1.0\): it must be above 0"),
        ({"factors": 1.0}, "place.factors is 1.0: it must be of type tuple"),
        ({"causal": "yes"}, "place.causal is 'yes': it must be of type bool"),
        ({"beem": 2}, "place: there is no knob 'beem'; did you mean 'beam'?"),
        ({"inner": {"rte": 2}}, "place.inner: there is no knob 'rte'; did you mean 'rate'?"),
        ({"inner": 3}, "place.inner is 3: it must be a Inner"),
    ],
)
def test_a_wrong_value_names_place_knob_value_and_what_is_allowed(knobs, message):
    with pytest.raises(ValueError, match=message):
        read(Outer, knobs, "place")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("width", "; did you mean config.shared.width or config.a.own.width? Known: layers, rate"),
        ("rte", "; did you mean 'rate'? Known: "),
        ("layrs", "; did you mean 'layers' or config.shared.layrs? Known: "),
        ("odd", ". Known: layers, rate"),
    ],
)
def test_a_knob_in_the_wrong_section_is_shown_the_right_one(name, hint):
    section = {"rate": 1, "layers": 2}
    a = {"own": {"width": 3}, "other": {"width": 4}}
    whole = {"a": a, "section": section, "shared": {"width": 5, "layrs": 6}}
    assert f"there is no knob {name!r}{hint}" in unknown_knob(name, section, whole)


def test_plain_values_come_back_whole():
    made = read(Outer, {"beam": 3, "factors": [1, 3.0], "inner": {"rate": 1}}, "place")
    assert made == Outer(beam=3, factors=(1, 3.0), inner=Inner(rate=1))
    assert read(Outer, plain(made), "place") == made


def test_defaults_leave_out_what_a_base_declares():
    assert defaults(Outer)["inner"] == {"rate": 1e-3}
    assert defaults(Derived, without=Outer) == {"draws": 8}


def test_settings_are_checked_without_a_config_too():
    with pytest.raises(ValueError, match=r"^draws is 0: it must be 1 or more"):
        Derived(draws=0)
