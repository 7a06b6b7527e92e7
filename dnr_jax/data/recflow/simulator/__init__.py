"""A simulator that writes every file of RecFlow with its schema, and the truth beside them.

Click law of shown videos: `P(view) = sigmoid(a + 1.5 g - 0.06 place)`, a solved so that the mean
over shown rows is `view_rate`. `truth/` holds `sigmoid(a + 1.5 g)`, true relevance free of place.
Nobody is shown a video twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import polars as pl
from scipy.optimize import brentq
from scipy.special import expit
from tqdm import tqdm

from dnr_jax.data.folders import new_folder
from dnr_jax.data.recflow.files import FLAGS, ITEM, USER
from dnr_jax.data.recflow.settings import MIN_VIDEOS, RecFlowSimulation
from dnr_jax.data.recflow.simulator import world as world_
from dnr_jax.data.recflow.simulator import writer
from dnr_jax.data.recflow.simulator.world import MAX_SHOWN, RERANKED, SAMPLED_LATE, TOP, World
from dnr_jax.data.recflow.simulator.writer import Quirks

LAST_DAY = date(2024, 2, 18)
HISTORY = 50
UTILITY_SLOPE, PLACE_SLOPE = 1.5, 0.06
# P(like), P(follow), P(forward), P(comment) after an effective view; a tenth of it otherwise.
ACTIONS = {"like": 0.03, "follow": 0.004, "forward": 0.005, "comment": 0.006}


def simulate(
    folder: Path,
    settings: RecFlowSimulation,
    *,
    quirks: Quirks = Quirks(),  # noqa: B008 (immutable)
    progress: bool = True,
) -> None:
    """Write a simulated RecFlow to `folder`, whole or not at all.

    Args:
      folder: must not exist yet.
      settings: size and seed.
      quirks: oddities of the real files, for tests.
      progress: show a progress bar.

    Raises:
      ValueError: too few requests for the days, or too few videos for the requests.
      FileExistsError: the folder exists.
    """
    if folder.exists():  # said before the long work, not after it
        raise FileExistsError(f"{folder} exists: delete it or simulate into another folder")
    rng, days = np.random.default_rng(settings.seed), settings.days
    names = [(LAST_DAY - timedelta(days=days - 1 - n)).isoformat() for n in range(days)]
    midnight = datetime.combine(date.fromisoformat(names[0]), datetime.min.time())
    start_ms = int(midnight.replace(tzinfo=timezone(timedelta(hours=8))).timestamp()) * 1000
    sizes = settings.users, settings.videos
    world = world_.make_world(rng, *sizes, start_ms, settings.noise)
    requests = _requests(rng, world, days, settings.requests_per_user_day, start_ms)
    rows = _all_rows(rng, world, requests, settings.rank_losers, quirks, progress)
    rows = _feedback(rng, rows, settings.view_rate)
    rows = _join(rows, requests, world)
    with new_folder(folder) as temporary:
        writer.write(temporary, rows, _histories(rows, requests), names, world, quirks)


def _requests(
    rng: np.random.Generator, world: World, days: int, rate: float, start_ms: int
) -> pl.DataFrame:
    """Draw who comes when: more in the evening; numbered from 0 in order of time."""
    users = len(world.taste)
    per_day = rng.poisson(rate, (days, users))
    if not per_day.any(axis=1).all():
        raise ValueError(
            f"a day without requests ({users} users, {rate} requests a user and day): raise either"
        )
    day, user = (np.repeat(i.ravel(), per_day.ravel()) for i in np.indices(per_day.shape))
    hour = rng.beta(4, 2, len(day)) * 24
    time = start_ms + day * world_.DAY_MS + (hour * 3_600_000).astype(np.int64)
    second = world.second_device[user]
    device = np.where((second >= 0) & (rng.random(len(user)) < 0.5), second, user)
    order = np.argsort(time, kind="stable")
    people = {name: world.people[user[order], n] for n, name in enumerate(USER)}
    columns = {"request_id": np.arange(len(order)), "request_timestamp": time[order]}
    return pl.DataFrame(columns | people | {"device_id": device[order], "day": day[order]})


def _all_rows(
    rng: np.random.Generator,
    world: World,
    requests: pl.DataFrame,
    losers: int,
    quirks: Quirks,
    progress: bool,
) -> pl.DataFrame:
    """Run the cascade in blocks and record its rows."""
    user, time = (requests[name].to_numpy() for name in ("user_id", "request_timestamp"))
    seen = _nothing_seen(user, world)
    parts = []
    blocks = list(_blocks(user, int(np.clip(2**21 // len(world.content), 1, 256))))
    bar = tqdm(blocks, desc="simulating RecFlow", unit="block", disable=not progress)
    for turn, ids in bar:
        past, now = MAX_SHOWN * turn, MAX_SHOWN * (turn + 1)
        funnel = world_.run_funnel(rng, world, user[ids], time[ids], seen[user[ids], :past])
        seen[user[ids], past:now] = funnel.shown
        parts.append(_late_rows(rng, funnel, losers, ids))
        parts.append(_early_rows("coarse_neg", funnel.coarse, funnel.coarse_g, ids))
        parts.append(_early_rows("prerank_neg", funnel.prerank, funnel.prerank_g, ids))
    rows = pl.concat(parts, how="diagonal").with_columns(
        pl.col(FLAGS).fill_null(False), pl.col("place").fill_null(0)
    )
    if quirks.absent_stages:
        early = pl.col("coarse_neg") | pl.col("prerank_neg")
        rows = rows.filter(~(early & (pl.col("request_id") % 7 == 0)))
    # A random order within a request: neither rank nor stage can be read off a row's place.
    return rows.with_columns(order=rng.random(len(rows))).sort("request_id", "order").drop("order")


def _nothing_seen(user: np.ndarray, world: World) -> np.ndarray:
    """Make room for each user's shown videos, `int32 [U, S]`, V where there is none (yet).

    Raises:
      ValueError: too few videos to find unseen ones for the last request of the busiest user.
    """
    videos, most = len(world.content), int(np.bincount(user).max())
    needed = MIN_VIDEOS + MAX_SHOWN * (most - 1)
    if videos < needed:
        raise ValueError(
            f"videos={videos}: a user of {most} requests may be shown {needed - MIN_VIDEOS} "
            f"before the last one, which needs {MIN_VIDEOS} others: at least {needed} "
            "videos, or fewer requests a user, are needed"
        )
    return np.full((len(world.taste), MAX_SHOWN * most), videos, np.int32)


def _blocks(user: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cut requests into blocks of one turn each: everybody's first, everybody's second, ...

    A block holds a user at most once, and comes after all earlier requests of its users.

    Yields:
      turn, from 0, and row numbers of at most `size` requests.
    """
    order = np.argsort(user, kind="stable")
    first = np.searchsorted(user[order], user[order])
    turn = np.empty_like(order)
    turn[order] = np.arange(len(order)) - first
    for now in range(turn.max() + 1):
        rows = np.flatnonzero(turn == now)
        for start in range(0, len(rows), size):
            yield now, rows[start : start + size]


def _late_rows(
    rng: np.random.Generator, funnel: world_.Funnel, losers: int, ids: np.ndarray
) -> pl.DataFrame:
    """Record rows of the ranking, rerank and edge stages, a row a video with all its flags."""
    count, width = funnel.ranked.shape
    rank = np.broadcast_to(np.arange(1, width + 1), (count, width))
    place = np.zeros((count, width), np.int64)
    place[:, :RERANKED] = funnel.rerank_place
    dropped = np.argsort(funnel.rerank_place, axis=1)[:, TOP:]
    beyond = np.broadcast_to(np.arange(RERANKED, width), (count, width - RERANKED))
    flags = {
        "realshow": funnel.display_place > 0,
        "rerank_pos": (place >= 1) & (place <= TOP),
        "rank_pos": rank <= TOP,
        "rerank_neg": _sampled(rng, dropped, width, SAMPLED_LATE),
        "rank_neg": _sampled(rng, beyond, width, losers),
    }
    kept = np.logical_or.reduce(list(flags.values()))
    columns = {"video_id": funnel.ranked, "g": funnel.ranked_g, "place": funnel.display_place}
    columns |= flags | {"rank_index": rank, "rerank_index": place}
    frame = pl.DataFrame({name: value[kept] for name, value in columns.items()})
    return frame.with_columns(
        pl.Series("request_id", ids[np.nonzero(kept)[0]]),
        pl.col("rerank_index").replace(0, None),
    )


def _sampled(rng: np.random.Generator, columns: np.ndarray, width: int, count: int) -> np.ndarray:
    """Mark `count` random ones of each row's `columns` in a `bool [rows, width]`."""
    drawn = world_.sample_columns(rng, len(columns), columns.shape[1], count)
    marked = np.zeros((len(columns), width), bool)
    np.put_along_axis(marked, np.take_along_axis(columns, drawn, axis=1), True, axis=1)
    return marked


def _early_rows(flag: str, videos: np.ndarray, g: np.ndarray, ids: np.ndarray) -> pl.DataFrame:
    request = np.repeat(ids, videos.shape[1])
    return pl.DataFrame(
        {"request_id": request, "video_id": videos.ravel(), "g": g.ravel()}
    ).with_columns(pl.lit(True).alias(flag))


def _feedback(rng: np.random.Generator, rows: pl.DataFrame, view_rate: float) -> pl.DataFrame:
    """Draw whether a shown video is viewed and acted upon; add true relevance to every row."""
    shown, place = rows["realshow"].to_numpy(), rows["place"].to_numpy()
    g = rows["g"].to_numpy().astype(np.float64)
    utility = UTILITY_SLOPE * g - PLACE_SLOPE * place
    bias = brentq(lambda a: expit(a + utility[shown]).mean() - view_rate, -50, 50)
    viewed = shown & (rng.random(len(rows)) < expit(bias + utility))
    columns: dict[str, np.ndarray] = {"viewed": viewed, "watched": rng.random(len(rows))}
    for name, probability in ACTIONS.items():
        chance = np.where(viewed, probability, probability / 10)
        columns[name] = shown & (rng.random(len(rows)) < chance)
    relevance = expit(bias + UTILITY_SLOPE * g).astype(np.float32)
    return rows.with_columns(**{n: pl.Series(v) for n, v in columns.items()}, relevance=relevance)


def _join(rows: pl.DataFrame, requests: pl.DataFrame, world: World) -> pl.DataFrame:
    """Add request and video columns, and watch times that agree with the views."""
    names = (*ITEM, "upload_timestamp", "duration")
    items = world.items[rows["video_id"].to_numpy()]
    rows = rows.with_columns(pl.Series(name, items[:, n]) for n, name in enumerate(names))
    rows = rows.join(requests, on="request_id", how="left", maintain_order="left")
    share = (
        pl.when("viewed").then(0.3 + 1.3 * pl.col("watched")).otherwise(0.299 * pl.col("watched"))
    )
    played = (share * pl.col("duration")).ceil().cast(pl.Int64)
    rows = rows.with_columns(playing_time=pl.when("realshow").then(played).otherwise(0))
    seen = pl.col("realshow") & (10 * pl.col("playing_time") >= 3 * pl.col("duration"))
    whole = pl.col("realshow") & (pl.col("playing_time") >= pl.col("duration"))
    return rows.with_columns(effective_view=seen, long_view=whole).drop("viewed", "watched")


def _histories(rows: pl.DataFrame, requests: pl.DataFrame) -> np.ndarray:
    """Replay: each request's 50 latest effective views of its user before it, `int64 [R, 50, 10]`.

    Padding is 0, but 2 in the column of `category_level_one`, as in the real files.
    """
    views = rows.filter("effective_view").sort("user_id", "request_timestamp", "video_id")
    columns = ("video_id", "author_id", "category_level_two", "category_level_one", "upload_type")
    times = ("upload_timestamp", "duration", "request_timestamp", "playing_time", "request_id")
    events = views.select(*columns, *times).to_numpy()
    span = 10**14  # above any time in milliseconds: one sorted key for (user, time)
    key = (views["user_id"] * span + views["request_timestamp"]).to_numpy()
    user = requests["user_id"].to_numpy()
    last = np.searchsorted(key, user * span + requests["request_timestamp"].to_numpy())
    first = np.searchsorted(key, user * span)
    place = last[:, None] - HISTORY + np.arange(HISTORY)
    real = place >= first[:, None]
    empty = np.zeros(events.shape[1], np.int64)
    empty[3] = 2
    events = np.concatenate([events, empty[None]])
    return events[np.where(real, place, len(events) - 1)]
