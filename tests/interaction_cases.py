"""Small hand-made interactions for the tests of data and retrievers."""

import numpy as np

from dnr_jax.data.interactions import Interactions


def interactions(user, item, label=None):
    user, item = np.asarray(user, np.int64), np.asarray(item, np.int64)
    label = np.ones(len(user)) if label is None else np.asarray(label)
    time = np.arange(len(user))
    return Interactions(user, item, label.astype(np.float32), time, {}, {}, {})
