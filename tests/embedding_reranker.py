"""The smallest reranker with a table of features, which can grow."""

from flax import linen as nn
from linear_reranker import LinearSettings

from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.rerankers import Entry


class Embedding(nn.Module):
    """`logit = sum of e_item e_user + w x`."""

    spec: object
    scored: bool

    def setup(self):
        self.embedding = FeatureEmbedding(self.spec, 4)
        self.slope = nn.Dense(1)

    def encode(self, request, *, drop):
        parts = self.embedding(request)
        return (parts.items * parts.user[:, None]).sum(axis=-1)

    def decode(self, memory, scores, where, *, drop):
        return memory + self.slope(scores[..., None] * self.scored)[..., 0]


def embedding(task, settings):
    """Make the model."""
    return wrap(Embedding(task.spec, settings.score_entry != "none"), dropout=0.0)


EMBEDDING = Entry("Embedding", LinearSettings, embedding)
