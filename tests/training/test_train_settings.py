"""The knobs of training: defaults that hold, and values that make no training."""

import pytest

from dnr_jax.training.settings import TrainSettings


@pytest.mark.parametrize(
    ("knobs", "match"),
    [
        ({"epochs": 0}, "epochs is 0: it must be 1 or more"),
        ({"seeds": 0}, "seeds is 0: it must be 1 or more"),
        ({"seeds": 10**6}, "seeds is 1000000: it must be 1 or more and at most 10000"),
        ({"lambda_e": -1}, "lambda_e is -1: it must be 0 or more"),
        ({"loss": "bse"}, "loss is 'bse': it must be one of own, direct"),
        ({"batch_size": 12, "micro_batch": 5}, "^micro_batch is 5, which does not divide"),
        ({"batch_size": 12, "micro_batch": 24}, "^micro_batch is 24, which does not divide"),
        ({"learning_rate_factors": ()}, r"^learning_rate_factors is \(\): name at least one"),
        ({"learning_rate_factors": (1.0, 3.0, 1.0)}, "each once"),
        ({"learning_rate_factors": (1, 1.0)}, "each once"),
        ({"learning_rate_factors": (1.0, 0.0)}, "it must be above 0"),
        ({"learning_rate_factors": (1.0, float("inf"))}, "it must be above 0 and at most 10000"),
        ({"generator_updates": 0}, "generator_updates is 0: it must be 1 or more"),
        ({"patience": 1.5}, "patience is 1.5: it must be of type int"),
    ],
)
def test_a_wrong_value_is_named(knobs, match):
    with pytest.raises(ValueError, match=match):
        TrainSettings(**knobs)


@pytest.mark.parametrize("micro_batch", [0, 1, 3, 12])
def test_parts_that_make_up_a_batch_are_taken(micro_batch):
    assert TrainSettings(batch_size=12, micro_batch=micro_batch).micro_batch == micro_batch
