"""The shared knobs: their ranges, and settings of one model on the trunk of another."""

import pytest

from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers.prm import PRMSettings


@pytest.mark.parametrize("name", ["width", "layers", "history_layers", "heads", "feed_forward"])
def test_sizes_are_positive(name):
    with pytest.raises(ValueError, match=f"{name} is 0: it must be 1 or more"):
        Trunk(**{name: 0})


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(ValueError, match=f"dropout is {rate}: it must be 0 or more and below 1"):
        Trunk(dropout=rate)


def test_settings_on_a_trunk_share_it_and_have_their_own_knobs():
    trunk = Trunk(width=12, heads=3, score_place="early")
    settings = PRMSettings.on(trunk, causal=True)
    assert settings == PRMSettings(width=12, heads=3, score_place="early", causal=True)
    assert settings.blocks == (2, 3, 128)
    assert settings.scores == ("concatenate", "early")
