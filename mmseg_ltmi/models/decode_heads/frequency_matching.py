"""More queries for an object of a rare class, in the matching of a mask classifier."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mmseg_ltmi.core.priors import ClassPrior


class FrequencyMatching:
    """Matches an object of a rare class with several queries.

    An object of class c, which a share f_c of the images holds, gets
    ``ceil(max(1, scale * sqrt(threshold / f_c)))`` queries. That is the repeat factor of LVIS
    (Gupta et al., CVPR 2019, section 4.2), taken over objects and not over images. Where the
    objects ask for more queries than there are, the matching picks the cheapest.

    Args:
        assigner: the head's own, such as mmdet's HungarianAssigner.
        threshold: classes in fewer images than this share are rare, between 0 and 1.
        scale: factor of the number of queries, > 0.
        max_queries: of one object at most.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self, assigner: Any, threshold: float = 0.1, scale: float = 1.0, max_queries: int = 5
    ) -> None:
        for name, value, good in (
            ('threshold', threshold, 0 < threshold <= 1),
            ('scale', scale, scale > 0),
            ('max_queries', max_queries, max_queries >= 1),
        ):
            if not good:
                raise ValueError(
                    f'frequency_matching has {name}={value}: use a threshold above 0 and up to 1, '
                    'a scale above 0 and 1 max_queries or more'
                )
        self.assigner = assigner
        self.threshold, self.scale, self.max_queries = threshold, scale, max_queries
        self.queries = torch.empty(0, dtype=torch.long)

    def set_prior(self, prior: ClassPrior) -> None:
        """Take how many images hold each class.

        Raises:
            ValueError: the prior has no image counts.
        """
        images = prior.presence().pixel_counts.tolist()
        number = prior.num_images or max(images)
        self.queries = torch.tensor([self._queries(of_class / number) for of_class in images])

    def _queries(self, share: float) -> int:
        if not share:
            return self.max_queries
        wanted = math.ceil(self.scale * math.sqrt(self.threshold / share))
        return min(max(wanted, 1), self.max_queries)

    def assign(self, pred_instances: Any, gt_instances: Any, img_meta: Any = None) -> Any:
        """As the assigner's own, of objects that are repeated; errors as there."""
        labels: Tensor = gt_instances.labels
        times = self.queries.to(labels.device)[labels]
        place = torch.arange(len(labels), device=labels.device).repeat_interleave(times)
        found = self.assigner.assign(pred_instances, gt_instances[place], img_meta)
        matched = found.gt_inds > 0  # counted from 1; 0 is no object
        found.gt_inds[matched] = place[found.gt_inds[matched] - 1] + 1
        found.num_gts = len(labels)
        return found
