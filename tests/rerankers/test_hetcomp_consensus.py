"""HetComp's pieces: discrepancy, pointers, and the losses, against definitions."""

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import ops
from dnr_jax.nn import slates
from dnr_jax.rerankers.hetcomp import consensus, distillation
from dnr_jax.rerankers.hetcomp.distillation import School
from dnr_jax.types import Reranker

BATCH = factories.make_batch(B=7, N=12, K=4)
WHERE = BATCH.weights > 0
POSITIVE = WHERE & (BATCH.labels > 0)
RNG = np.random.default_rng(0)
S, T = (jnp.asarray(RNG.normal(size=WHERE.shape), jnp.float32) for _ in range(2))
RANKS = ops.ranks(T, WHERE)


def rows(*arrays):
    """Pair up the rows of arrays in double precision; booleans stay booleans."""
    plain = [np.asarray(a) for a in arrays]
    return zip(*(a if a.dtype == bool else a.astype(np.float64) for a in plain), strict=True)


def test_importance_is_the_discount_of_dcg():
    for w, s, real in rows(consensus.importance(S, WHERE), S, WHERE):
        best_first = np.argsort(-s[real])
        np.testing.assert_allclose(
            w[real][best_first], 1 / np.log2(np.arange(real.sum()) + 2), rtol=1e-5
        )
        assert np.all(w[~real] == 0)


def test_discrepancy_is_one_minus_ndcg():
    mine, theirs = (consensus.importance(x, WHERE) for x in (S, T))
    for d, s, gain, real in rows(consensus.discrepancy(mine, theirs), S, theirs, WHERE):
        discounts = 1 / np.log2(np.arange(real.sum()) + 2)
        mine_first = gain[real][np.argsort(-s[real])] @ discounts
        ideal = np.sort(gain[real])[::-1] @ discounts
        np.testing.assert_allclose(d, 1 - mine_first / ideal, atol=1e-5)
    np.testing.assert_allclose(consensus.discrepancy(mine, mine), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("pointer", "distances", "ratio", "expected"),
    [
        (0, [0.1, 0.2, 0.4], 1.05, 1),  # what comes next is nearer than the last
        (0, [0.1, 0.39, 0.4], 1.05, 0),  # not nearer enough
        (0, [0.1, 0.39, 0.4], 1.00, 1),
        (0, [0.1, 0.40, 0.3], 1.05, 1),  # the last is nearer than what comes next
        (1, [0.1, 0.20, 0.3], 1.05, 1),  # the next is the last: waits for the ratio to fall
        (1, [0.1, 0.20, 0.3], 0.95, 2),
        (2, [0.1, 0.20, 0.3], 0.95, 2),  # no further
    ],
)
def test_a_pointer_moves_by_one_when_it_is_due(pointer, distances, ratio, expected):
    found = consensus.move(
        jnp.full((1, 1), pointer), jnp.array(distances)[None, :, None], ratio=ratio
    )
    assert int(found[0, 0]) == expected


def test_the_coarse_loss_by_its_definition():
    total = count = 0.0
    for s, rank, positive, real in rows(S, RANKS, POSITIVE, WHERE):
        target = real & (positive | (rank <= real.sum() // 2))
        outside = np.exp(s[real & ~target]).sum()
        total += (np.log(np.exp(s[target]) + outside) - s[target]).sum()
        count += target.sum()
    found = consensus.coarse_loss(S, RANKS, POSITIVE, WHERE)
    np.testing.assert_allclose(found, total / count, rtol=1e-5)


def test_order_inside_the_target_matters_to_the_fine_loss_alone():
    # Turning the better half around leaves it the same half.
    half = WHERE.sum(axis=1, keepdims=True) // 2
    turned = jnp.where(WHERE & (half >= RANKS), half + 1 - RANKS, RANKS)
    parts = (POSITIVE, WHERE)
    assert float(consensus.coarse_loss(S, RANKS, *parts)) == float(
        consensus.coarse_loss(S, turned, *parts)
    )
    assert float(consensus.fine_loss(S, RANKS, *parts)) != float(
        consensus.fine_loss(S, turned, *parts)
    )


def test_list_mle_is_the_likelihood_of_the_list():
    chosen = consensus._better(RANKS, WHERE, share=2)
    order = slates.top_list(-RANKS.astype(jnp.float32), chosen, S.shape[1])
    likelihood = slates.list_log_probability(S, WHERE, order[:, None])
    np.testing.assert_allclose(
        consensus.list_mle(S, RANKS, chosen, where=WHERE),
        -likelihood.sum() / chosen.sum(),
        rtol=1e-5,
    )


def test_the_fine_loss_adds_three_lists():
    def part(chosen):
        return float(consensus.list_mle(S, RANKS, chosen, where=WHERE))

    counts = np.asarray(WHERE.sum(axis=1, keepdims=True))
    half, tenth = (WHERE & (np.asarray(RANKS) <= counts // share) for share in (2, 10))
    assert bool(tenth.any())
    expected = part(POSITIVE) + 0.5 * part(half) + 0.5 * part(tenth)
    np.testing.assert_allclose(consensus.fine_loss(S, RANKS, POSITIVE, WHERE), expected, rtol=1e-6)


@pytest.mark.parametrize("loss", [consensus.coarse_loss, consensus.fine_loss])
def test_requests_without_candidates_teach_nothing(loss):
    nothing = jnp.zeros_like(WHERE)
    value, slope = jax.value_and_grad(loss)(S, 0 * RANKS, nothing, nothing)
    assert float(value) == 0
    np.testing.assert_array_equal(slope, 0)


def stored(request, where=None):
    """Make a reranker whose parameters are its logits."""
    return Reranker(
        lambda key, request, scores: None,
        lambda params, request, *, key=None, train=False: request.where,
        lambda params, memory, scores, *, key=None, train=False: ops.mask_logits(params, memory),
    )


SCHOOL = School(stored(None), {"a": stored(None), "b": stored(None)}, 3)
SNAPSHOTS = distillation.groups("teachers", SCHOOL)
TAUGHT = [jnp.asarray(RNG.normal(size=WHERE.shape), jnp.float32) for _ in SNAPSHOTS]
ALIKE = {name: {"a": x, "b": x} for name, x in zip(SNAPSHOTS, TAUGHT, strict=True)}


def consensus_of(params, past):
    return distillation.consensus(SCHOOL, params, BATCH, SNAPSHOTS, past)


def test_equal_teachers_are_one_teacher():
    np.testing.assert_array_equal(consensus_of(ALIKE, []), ops.ranks(TAUGHT[0], WHERE))


def test_teachers_are_heard_alike():
    parts = ALIKE | {"teachers_1": {"a": S, "b": T}}
    both = consensus.importance(S, WHERE) + consensus.importance(T, WHERE)
    np.testing.assert_array_equal(consensus_of(parts, []), ops.ranks(both, WHERE))


def test_a_student_like_the_next_snapshot_is_taught_by_it_and_then_by_the_last():
    many = np.asarray(WHERE.sum(axis=1)) > 3  # of short lists all rankings are near
    params = ALIKE | {"student_1": TAUGHT[1], "student_2": TAUGHT[1]}
    for past, expected in ((["student_1"], 1), (["student_1", "student_2"], 2)):
        found = np.asarray(consensus_of(params, past))
        np.testing.assert_array_equal(found[many], ops.ranks(TAUGHT[expected], WHERE)[many])


def test_a_student_as_far_from_the_next_snapshot_as_from_the_last_stays():
    # The next snapshot and the last one rank alike: neither is nearer.
    params = ALIKE | {"teachers_3": ALIKE["teachers_2"], "student_1": S}
    np.testing.assert_array_equal(consensus_of(params, ["student_1"]), ops.ranks(TAUGHT[0], WHERE))
