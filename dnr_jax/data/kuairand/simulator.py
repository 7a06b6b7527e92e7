"""Small synthetic files with KuaiRand-Pure's schema, from a latent model.

The standard log shows what a user is likely to click; the random log shows anything.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from dnr_jax.data.folders import new_folder
from dnr_jax.data.kuairand.settings import KuaiRandSimulation

WIDTH = 6
STANDARD = 50  # exposures per user in each of the two standard logs
FIRST_MS, SECOND_MS, DAY_MS = 1_649_376_000_000, 1_650_585_600_000, 86_400_000
HEADER = (
    *("user_id", "video_id", "date", "hourmin", "time_ms", "is_click", "is_like", "is_follow"),
    *("is_comment", "is_forward", "is_hate", "long_view", "play_time_ms", "duration_ms"),
    *("profile_stay_time", "comment_stay_time", "is_profile_enter", "is_rand", "tab"),
)


def simulate(folder: Path, settings: KuaiRandSimulation) -> None:
    """Write the logs and features of KuaiRand-Pure into a new folder.

    Raises:
      FileExistsError: the folder is there already.
    """
    draw = np.random.default_rng(settings.seed)
    p, q = draw.normal(size=(settings.users, WIDTH)), draw.normal(size=(settings.videos, WIDTH))
    liking = p @ q.T / WIDTH**0.5
    noise = draw.gumbel(size=liking.shape)
    popular = np.log(1 + draw.permutation(settings.videos))
    standard = np.argsort(popular - liking - noise, axis=1)[:, : 2 * STANDARD]
    random = np.argsort(draw.random(liking.shape), axis=1)[:, : settings.random]
    logs = {
        "log_standard_4_08_to_4_21_pure": _log(draw, liking, standard[:, :STANDARD], FIRST_MS, 0),
        "log_standard_4_22_to_5_08_pure": _log(draw, liking, standard[:, STANDARD:], SECOND_MS, 0),
        "log_random_4_22_to_5_08_pure": _log(draw, liking, random, SECOND_MS, 1),
        "user_features_pure": _users(settings.users),
        "video_features_basic_pure": _videos(q),
    }
    with new_folder(folder) as temporary:
        for name, frame in logs.items():
            frame.write_csv(temporary / f"{name}.csv")


def _log(
    draw: np.random.Generator, liking: np.ndarray, shown: np.ndarray, start: int, is_rand: int
) -> pl.DataFrame:
    users, count = shown.shape
    user, video = np.repeat(np.arange(users), count), shown.reshape(-1)
    time = np.sort(draw.integers(0, 13 * DAY_MS, shown.shape), axis=1).reshape(-1) + start
    stamp = time.astype("datetime64[ms]").astype("datetime64[m]").astype(str)
    click = draw.random(len(user)) < 1 / (1 + np.exp(-2 * liking[user, video]))
    long = click & (draw.random(len(user)) < 0.5)
    known = {
        "user_id": user,
        "video_id": video,
        "date": [s[:10].replace("-", "") for s in stamp],
        "hourmin": [str(int(s[11:].replace(":", ""))) for s in stamp],
        "time_ms": time,
        "is_click": click.astype(int),
        "long_view": long.astype(int),
        "duration_ms": 1000 * draw.integers(5, 60, len(user)),
        "is_rand": np.full(len(user), is_rand),
    }
    zero = np.zeros(len(user), int)
    return pl.DataFrame({name: known.get(name, zero) for name in HEADER}).sort("time_ms")


def _users(count: int) -> pl.DataFrame:
    ids = np.arange(count)
    return pl.DataFrame(
        {
            "user_id": ids,
            "user_active_degree": np.where(ids % 3, "full_active", "high_active"),
            "follow_user_num_range": np.where(ids % 2, "(0,10]", "(10,50]"),
            "fans_user_num_range": np.where(ids % 5, "0", "[1,10)"),
            "onehot_feat0": ids % 2,
        }
    )


def _videos(q: np.ndarray) -> pl.DataFrame:
    ids = np.arange(len(q))
    return pl.DataFrame(
        {
            "video_id": ids,
            "author_id": ids // 3,
            "video_type": np.where(ids % 20, "NORMAL", "AD"),
            "upload_dt": "2022-04-01",
            "upload_type": np.where(ids % 2, "ShortImport", "LongCamera"),
            "tag": [f"{tag},{tag + 7}" for tag in q.argmax(1)],
        }
    )
