"""The simulated world behind RecFlow-shaped logs: people, videos, and a cascade that ranks them.

Utility of a video for a user is `g = 1.2 p.q / 4 + 0.3 popularity + 0.2 freshness`. Each stage of
the cascade sees g with Gaussian noise, of the spread `NOISE` times `RecFlowSimulation.noise`; later
stages see it better and keep fewer. Retrieval leaves out what the user was shown before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LATENT = 16
RETRIEVED, RANKED, RERANKED, TOP = 2000, 500, 120, 10
MAX_SHOWN, SHOWN_CHANCE = 6, 0.61  # shown: 1 + Binomial(5, 0.61) of the top, 4.05 on average
PRE_KEPT = 3 / 8  # share of retrieved videos that pass pre-ranking (3000 of 8000 in the logs)
SAMPLED_EARLY, SAMPLED_LATE = 40, 10  # dropped rows recorded: of each early stage, each late one
NOISE = {"prerank": 1.2, "coarse": 0.9, "rank": 0.6, "rerank": 0.4}
REPEAT_PENALTY = 0.3
DAY_MS = 86_400_000
AGES, GENDERS, PROVINCES, UPLOAD_TYPES = 8, 3, 79, 40
MAX_CATEGORY_ONE, MAX_CATEGORY_TWO = 140, 784


class World(NamedTuple):
    """Latent and visible properties of users and videos; arrays by raw id.

    Attributes:
      taste: `float32 [U, 16]`.
      people: `int64 [U, 5]`: user, first device, age, gender, province.
      second_device: `int64 [U]`, -1 for most.
      content: `float32 [V, 16]`.
      popularity: `float32 [V]`, standardised log of a Zipf(1.05) law.
      items: `int64 [V, 7]`: video, author, category one, category two, upload type, upload time
        (seconds), duration (milliseconds).
      sizes: number of ids of each kind, by column name.
      noise: spread of the noise of each stage.
    """

    taste: np.ndarray
    people: np.ndarray
    second_device: np.ndarray
    content: np.ndarray
    popularity: np.ndarray
    items: np.ndarray
    sizes: dict[str, int]
    noise: dict[str, float]


def make_world(
    rng: np.random.Generator, users: int, videos: int, start_ms: int, noise: float
) -> World:
    """Draw users and videos; all uploads lie before `start_ms` (epoch milliseconds)."""
    categories = min(MAX_CATEGORY_TWO, max(12, videos // 60))
    sizes = {
        "user_id": users,
        "device_id": users,
        "age": AGES,
        "gender": GENDERS,
        "province": PROVINCES,
        "video_id": videos,
        "author_id": max(1, round(videos / 2.5)),
        "category_level_one": max(3, round(MAX_CATEGORY_ONE * categories / MAX_CATEGORY_TWO)),
        "category_level_two": categories,
        "upload_type": UPLOAD_TYPES,
    }
    centres = rng.normal(size=(categories, LATENT))
    category = rng.choice(categories, videos, p=_skewed(rng, categories))
    content = np.sqrt(0.6) * centres[category] + np.sqrt(0.4) * rng.normal(size=(videos, LATENT))
    zipf_log = -1.05 * np.log(1 + rng.permutation(videos))
    popularity = (zipf_log - zipf_log.mean()) / zipf_log.std()
    items = _items(rng, category, sizes, start_ms)
    people, second = _people(rng, users)
    sizes["device_id"] += int((second >= 0).sum())
    taste = rng.normal(size=(users, LATENT)).astype(np.float32)
    spread = {stage: noise * usual for stage, usual in NOISE.items()}
    kinds = content.astype(np.float32), popularity.astype(np.float32)
    return World(taste, people, second, *kinds, items, sizes, spread)


def _items(
    rng: np.random.Generator, category: np.ndarray, sizes: dict[str, int], start_ms: int
) -> np.ndarray:
    """Draw the visible columns of videos with the given categories (level two)."""
    count, authors = len(category), sizes["author_id"]
    age_seconds = 86400 * rng.lognormal(np.log(10), 1.0, count)
    columns = (
        np.arange(count),
        rng.choice(authors, count, p=_skewed(rng, authors)),
        category * sizes["category_level_one"] // sizes["category_level_two"],
        category,
        rng.choice(UPLOAD_TYPES, count, p=_skewed(rng, UPLOAD_TYPES)),
        start_ms // 1000 - 1 - age_seconds,
        1000 * np.clip(rng.lognormal(np.log(25), 0.8, count), 3, 600),
    )
    return np.stack([c.astype(np.int64) for c in columns], axis=-1)


def _people(rng: np.random.Generator, users: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw user columns and second devices (0.2% own one)."""
    owners = np.flatnonzero(rng.random(users) < 0.002)
    second = np.full(users, -1, np.int64)
    second[owners] = users + np.arange(len(owners))
    drawn = [
        rng.choice(count, users, p=_skewed(rng, count)) for count in (AGES, GENDERS, PROVINCES)
    ]
    people = np.stack([np.arange(users), np.arange(users), *drawn], axis=-1).astype(np.int64)
    return people, second


def _skewed(rng: np.random.Generator, count: int) -> np.ndarray:
    weights = 1 / (1 + rng.permutation(count)) ** 0.7
    return np.asarray(weights / weights.sum())


class Funnel(NamedTuple):
    """What the cascade did with a block of requests; videos as ids, g beside them.

    Attributes:
      ranked, ranked_g: `[B, 500]` in order of the ranking stage.
      rerank_place: `int [B, 120]`, place from 1 of the first 120 in the rerank stage.
      display_place: `int [B, 500]`, place from 1 of the shown ones, 0 elsewhere.
      shown: `int [B, 6]`, ids of the shown ones in display order, then V as a filler.
      coarse, coarse_g, prerank, prerank_g: `[B, 40]`, sampled losers of the early stages.
    """

    ranked: np.ndarray
    ranked_g: np.ndarray
    rerank_place: np.ndarray
    display_place: np.ndarray
    shown: np.ndarray
    coarse: np.ndarray
    coarse_g: np.ndarray
    prerank: np.ndarray
    prerank_g: np.ndarray


def run_funnel(
    rng: np.random.Generator,
    world: World,
    users: np.ndarray,
    now_ms: np.ndarray,
    seen: np.ndarray,
) -> Funnel:
    """Send requests of `users [B]` at `now_ms [B]` through the cascade.

    Args:
      rng: source of retrieval sets and stage noise.
      world: who and what there is.
      users: `int [B]`.
      now_ms: `int [B]`, epoch milliseconds.
      seen: `int [B, S]`, videos that each user was shown before, V as a filler;
        S <= V - `MIN_VIDEOS`.
    """
    videos, g = _retrieve(rng, world, users, now_ms, seen)
    kept = max(int(PRE_KEPT * videos.shape[1]), RANKED + SAMPLED_EARLY)
    videos, g, prerank, prerank_g = _cut(rng, videos, g, kept, world.noise["prerank"])
    videos, g, coarse, coarse_g = _cut(rng, videos, g, RANKED, world.noise["coarse"])
    order = np.argsort(-_noisy(rng, g, world.noise["rank"]), axis=1)
    videos, g = (np.take_along_axis(a, order, axis=1) for a in (videos, g))
    final = _rerank(rng, world, videos[:, :RERANKED], g[:, :RERANKED])
    place = np.argsort(final, axis=1) + 1
    display, shown = _display(rng, videos, _swap(rng, final[:, :TOP]), len(world.content))
    return Funnel(videos, g, place, display, shown, coarse, coarse_g, prerank, prerank_g)


def _retrieve(
    rng: np.random.Generator,
    world: World,
    users: np.ndarray,
    now_ms: np.ndarray,
    seen: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Pick distinct unseen videos for each request: a random walk through one permutation.

    A step that shares no factor with V visits every video once, so no sorting is needed. The walk
    is so much longer than what is kept that enough is left where all of `seen` lies on it.
    """
    count, spare = len(world.content), seen.shape[1]
    steps = np.array([s for s in range(1, min(count, 4000)) if np.gcd(s, count) == 1])
    start = rng.integers(count, size=(len(users), 1))
    step = rng.choice(steps, (len(users), 1))
    walk = (start + step * np.arange(min(count, RETRIEVED + spare))) % count
    videos = _first_unseen(rng.permutation(count)[walk], seen, min(RETRIEVED, count - spare), count)
    affinity = np.take_along_axis(world.taste[users] @ world.content.T, videos, axis=1)
    age_days = (now_ms[:, None] / 1000 - world.items[videos, 5]) / 86400
    fresh = np.exp(-age_days / 10) * 4 - 1.5  # about centred, spread about 1
    return videos, (1.2 * affinity / 4 + 0.3 * world.popularity[videos] + 0.2 * fresh).astype(
        np.float32
    )


def _first_unseen(videos: np.ndarray, seen: np.ndarray, kept: int, count: int) -> np.ndarray:
    """Keep the first `kept` of each row of `videos` that are not in the same row of `seen`."""
    marked = np.zeros((len(videos), count + 1), bool)  # the last column takes the filler
    np.put_along_axis(marked, seen, True, axis=1)
    unseen = ~np.take_along_axis(marked, videos, axis=1)
    unseen &= np.cumsum(unseen, axis=1) <= kept
    return np.asarray(videos[unseen].reshape(len(videos), kept))


def _noisy(rng: np.random.Generator, g: np.ndarray, spread: float) -> np.ndarray:
    return np.asarray(g + np.float32(spread) * rng.standard_normal(g.shape, np.float32))


def _cut(
    rng: np.random.Generator, videos: np.ndarray, g: np.ndarray, kept: int, spread: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Keep the `kept` best under noise; return them and a sample of the others, with g."""
    order = np.argpartition(-_noisy(rng, g, spread), kept - 1, axis=1)
    lost = order[:, kept:]
    lost = np.take_along_axis(lost, sample_columns(rng, len(lost), lost.shape[1], SAMPLED_EARLY), 1)
    parts = [np.take_along_axis(a, o, axis=1) for o in (order[:, :kept], lost) for a in (videos, g)]
    return parts[0], parts[1], parts[2], parts[3]


def sample_columns(rng: np.random.Generator, rows: int, columns: int, count: int) -> np.ndarray:
    """Draw `count` distinct column numbers below `columns` for each row (all, if fewer)."""
    if count >= columns:
        return np.broadcast_to(np.arange(columns), (rows, columns))
    draws = rng.random((rows, columns), np.float32)
    return np.argpartition(draws, count - 1, axis=1)[:, :count]


def _rerank(
    rng: np.random.Generator, world: World, videos: np.ndarray, g: np.ndarray
) -> np.ndarray:
    """Order the 120 by a better look at g, less a penalty for each better one of its category."""
    score = _noisy(rng, g, world.noise["rerank"])
    order = np.argsort(-score, axis=1)
    category = np.take_along_axis(world.items[videos, 3], order, axis=1)
    same = category[:, :, None] == category[:, None, :]
    repeats = np.tril(same, -1).sum(axis=2)
    penalised = np.take_along_axis(score, order, axis=1) - REPEAT_PENALTY * repeats
    return np.take_along_axis(order, np.argsort(-penalised, axis=1), axis=1)


def _swap(rng: np.random.Generator, final: np.ndarray) -> np.ndarray:
    """Edge ranking: swap neighbours from the top down, each with probability 0.2."""
    final = final.copy()
    for place in range(final.shape[1] - 1):
        rows = np.flatnonzero(rng.random(len(final)) < 0.2)
        final[rows, place], final[rows, place + 1] = final[rows, place + 1], final[rows, place]
    return final


def _display(
    rng: np.random.Generator, ranked: np.ndarray, final: np.ndarray, filler: int
) -> tuple[np.ndarray, np.ndarray]:
    """Show the first few columns of `final`: their display places, and their ids or `filler`."""
    number = 1 + rng.binomial(MAX_SHOWN - 1, SHOWN_CHANCE, size=(len(final), 1))
    columns, place = final[:, :MAX_SHOWN], np.arange(1, MAX_SHOWN + 1)
    display = np.zeros(ranked.shape, np.int64)
    np.put_along_axis(display, columns, np.where(place <= number, place, 0), axis=1)
    ids = np.take_along_axis(ranked, columns, axis=1)
    return display, np.where(place <= number, ids, filler)
