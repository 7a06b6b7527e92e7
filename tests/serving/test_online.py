"""What the service computes, in which shapes, and how it batches."""

import asyncio
import threading

import jax
import numpy as np
import polars as pl
import pytest
from served import groups, raw

import dnr_jax
from dnr_jax.data import direct
from dnr_jax.data.encoders import Vocabulary
from dnr_jax.data.table import coded_candidates
from dnr_jax.serving import Scorer, online
from dnr_jax.serving.batching import Batcher, OverloadedError


@pytest.mark.parametrize("strange", [False, True])
def test_single_requests_become_the_arrays_of_the_table(packed, candidates, strange):
    frame = candidates
    if strange:  # unknown and missing values, short lists, ids as text
        frame = candidates.with_columns(
            user_id=pl.lit("nobody"),
            item_id=pl.when(pl.col("item_id") % 3 == 0).then(10**6).otherwise(pl.col("item_id")),
            i_price=pl.when(pl.col("item_id") % 2 == 0).then(None).otherwise(pl.col("i_price")),
            i_tags=pl.when(pl.col("item_id") % 5 == 0).then(None).otherwise(pl.col("i_tags")),
            c_weekday=pl.lit(None, pl.Int64),
        ).filter(pl.int_range(pl.len()).over("request_id") <= pl.col("request_id") % 8)
        frame = frame.with_columns(pl.col("item_id").cast(pl.String)).drop("u_city")
    scorer = Scorer(packed)
    encoders = scorer.model.encoders
    coded = scorer.code(scorer.read(frame))
    size, count = encoders.size, len(coded.requests)
    request, _ = coded_candidates.request_arrays(coded, np.arange(count), size, encoders)
    found = encoders.direct().arrays([raw(own) for own in groups(frame)], size)
    for name, array in found.items():
        expected = getattr(request, name)
        assert array.dtype == expected.dtype, name
        np.testing.assert_array_equal(array, expected, name)
    assert set(found) == {name for name, array in vars(request).items() if array is not None}


def test_an_encoder_is_read_from_the_folder_of_a_model(packed, candidates):
    requests = [raw(own) for own in groups(candidates)]
    model = dnr_jax.load(packed)
    mine = direct.load(packed / "encoders", model.card["score"]).arrays(requests, 16)
    theirs = model.encoders.direct().arrays(requests, 16)
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)


def test_items_may_come_by_column(packed, candidates):
    encoders = dnr_jax.load(packed).encoders
    records = [raw(own) for own in groups(candidates)]
    columns = [
        one | {"items": {name: [item[name] for item in one["items"]] for name in one["items"][0]}}
        for one in records
    ]
    mine, theirs = (encoders.direct().arrays(requests, 16) for requests in (columns, records))
    assert mine.keys() == theirs.keys()
    for name, array in mine.items():
        np.testing.assert_array_equal(array, theirs[name])


@pytest.mark.parametrize(
    ("keys", "values", "ids"),
    [
        (["a", "ab", "true"], ["ab", "a", "abcdef", None, True, 7], [3, 2, 1, 1, 4, 1]),
        (
            [-1, 5, 7],
            [5, "7", "+7", 5.0, 5.5, None, True, "x", 2**70, -1],
            [3, 4, 4, 3, *[1] * 5, 2],
        ),
        ([-1, 5, 7], [7, 6], [4, 1]),
        ([], ["a", None], [1, 1]),
    ],
)
def test_ids_are_looked_up_whatever_they_are_written_as(keys, values, ids):
    transforms = {"widths": {"user": {}, "context": {}, "item": {}}, "kinds": {}}
    transforms |= {"numbers": {}, "item_numbers": {}, "score": ""}
    words = np.array(keys) if keys else Vocabulary(np.zeros(0, np.int64)).keys
    encoder = direct.Encoder({"user_id": words, "item_id": words}, transforms, 3)
    items = [{"item_id": value} for value in values]
    found = encoder.arrays([{"items": items}], len(values))["candidates"][0, :, 0]
    assert found.tolist() == ids
    past = encoder.arrays([{"items": items, "history": values}], len(values))["history"][0, :, 0]
    assert past.tolist() == ids[-3:] if len(ids) >= 3 else [0] * (3 - len(ids)) + ids


def test_the_engine_scores_as_the_model_does_and_compiles_nothing_more(
    packed, engine, caplog, candidates
):
    assert engine.sizes == (8, 16)
    assert engine.batches == (1, 2)
    whole = raw(groups(candidates)[0])
    numbers = list(range(11))
    requests = [
        whole,
        {"items": [{"item_id": n} for n in numbers], "scores": [0.5 * n for n in numbers]},
        whole | {"items": whole["items"][:1], "scores": [3.0]},
    ]
    with jax.log_compiles():
        found, unknown = engine.begin(requests)()
        assert not [one for one in caplog.messages if "ompil" in one]
        jax.jit(lambda x: x + len(requests))(1.0)
        assert [one for one in caplog.messages if "ompil" in one]  # it would be seen
    for mine, theirs in zip(found, dnr_jax.load(packed).scores(requests), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert unknown["user.user_id"] == 1


def test_models_of_other_data_sets_are_not_served(packed):
    model = dnr_jax.load(packed)
    other = dnr_jax.Model(model.card | {"data": {"name": "recflow"}}, {}, model.encoders, None)
    with pytest.raises(ValueError, match=r"trained on recflow.* only .*, table are served"):
        online.Engine(other, most=1)


def test_what_arrives_while_a_batch_computes_is_the_next_batch():
    seen, computing, go = [], threading.Event(), threading.Event()

    def begin(batch):
        seen.append(list(batch))

        def finish():
            computing.set()
            assert go.wait(10)
            return [2 * one for one in batch]

        return finish

    async def main():
        batcher = Batcher(begin, most=3, limit=4)
        first = asyncio.create_task(batcher(1))
        await asyncio.to_thread(computing.wait, 10)
        others = [asyncio.create_task(batcher(n)) for n in (2, 3, 4, 5)]
        await asyncio.sleep(0)
        assert batcher.waiting == 4
        with pytest.raises(OverloadedError, match=r"waiting requests is full \(4\)"):
            await batcher(6)
        go.set()
        assert await asyncio.gather(first, *others) == [2, 4, 6, 8, 10]
        assert await batcher(7) == 14

    asyncio.run(main())
    assert seen == [[1], [2, 3, 4], [5], [7]]


@pytest.mark.parametrize("at", ["begin", "finish"])
def test_a_batch_that_fails_fails_alone(at):
    def fail_if_bad(batch, now):
        if "bad" in batch and now == at:
            raise FloatingPointError("no number")
        return batch

    def begin(batch):
        fail_if_bad(batch, "begin")
        return lambda: fail_if_bad(batch, "finish")

    async def main():
        batcher = Batcher(begin, most=1, limit=9)
        good, bad, last = (asyncio.create_task(batcher(n)) for n in ("good", "bad", "last"))
        assert await good == "good"
        with pytest.raises(FloatingPointError, match="no number"):
            await bad
        assert await last == "last"

    asyncio.run(main())
