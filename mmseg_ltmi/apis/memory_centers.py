"""Makes a memory smaller: a few centers of each class stand for its pixels."""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2

from mmseg_ltmi.core.posterior import ClassMemory, KeyOrigins


def with_centers(memory: ClassMemory, count: int, seed: int = 0) -> ClassMemory:
    """A memory with fewer keys: the centers that k-means finds of each class.

    A center stands for the pixels of its cluster, and its origin is that of the nearest of them.

    Args:
        memory: of pixels.
        count: centers of each class; a class with fewer keys keeps those.
        seed: of the first centers.
    """
    random = np.random.default_rng(seed)
    stored = memory.log_share.isfinite()
    keys, of_class = memory.keys[stored], memory.key_labels
    shares = memory.log_share[stored].exp()
    centers, labels, weights, nearest = [], [], [], []
    for c in of_class.unique().tolist():
        place = (of_class == c).nonzero()[:, 0]
        own = keys[place]
        if len(own) <= count:
            centers.append(own)
            cluster = torch.arange(len(own))
        else:
            with warnings.catch_warnings(), np.errstate(invalid='ignore'):
                # An empty cluster, of keys that are equal, is left out below.
                warnings.filterwarnings('ignore', 'One of the clusters is empty', UserWarning)
                found, number = kmeans2(own.numpy(), count, minit='++', rng=random)
            used, cluster = torch.from_numpy(number).long().unique(return_inverse=True)
            centers.append(F.normalize(torch.from_numpy(found)[used], dim=1))
        score = own @ centers[-1].T
        inside = F.one_hot(cluster, len(centers[-1])).bool()
        nearest.append(place[score.masked_fill(~inside, -torch.inf).argmax(0)])
        labels.append(of_class.new_full((len(centers[-1]),), c))
        weights.append((inside * shares[place][:, None]).sum(0))
    origins = memory.origins
    if origins is not None:
        chosen = torch.cat(nearest)
        origins = KeyOrigins(origins.images, origins.image[chosen], origins.position[chosen])
    return ClassMemory(
        torch.cat(centers),
        torch.cat(labels),
        memory.num_classes,
        float(memory.temperature),
        memory.projector,
        torch.cat(weights),
        float(memory.weight),
        memory.classes,
        memory.fingerprint,
        origins,
        {**memory.report, 'centers': count},
    )
