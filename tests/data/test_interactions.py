"""The k-core against removal one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interaction_cases import interactions

from dnr_jax.data.interactions import k_core


def slow_core(rows, core):
    """Remove one weak user or item at a time until none is left."""
    rows = set(rows)
    while True:
        for side in (0, 1):
            for one in {r[side] for r in rows}:
                own = {r for r in rows if r[side] == one}
                if len(own) < core:
                    rows -= own
                    break
            else:
                continue
            break
        else:
            return rows


@settings(max_examples=30, deadline=None)
@given(
    st.sets(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=40),
    st.integers(1, 4),
    st.sampled_from([0, 10**12]),  # ids that no table has a row for
)
def test_k_core_equals_one_by_one_removal(rows, core, first):
    rows = {(user + first, item) for user, item in rows}
    expected = slow_core(rows, core)
    given_rows = interactions(*zip(*sorted(rows), strict=True))
    if not expected:
        with pytest.raises(ValueError, match="empty"):
            k_core(given_rows, core=core)
        return
    found = k_core(given_rows, core=core)
    assert set(zip(found.user.tolist(), found.item.tolist(), strict=True)) == expected
    assert sum(found.report["core_removed_by_pass"]) == len(rows) - len(expected)
    np.testing.assert_array_equal(found.time, np.sort(found.time))
