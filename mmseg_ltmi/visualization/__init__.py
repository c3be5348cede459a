"""Plots, as PNG, PDF, SVG or whatever else the suffix of the file says."""

from typing import TYPE_CHECKING

from mmseg_ltmi.core.on_demand import import_on_demand

if TYPE_CHECKING:
    from .neighbors_page import PixelNeighbors, draw_neighbors_page
    from .operating_point_plot import plot_operating_points
    from .per_class_plot import plot_class_differences, plot_per_class_iou
    from .prior_plot import plot_class_prior
    from .queue_plots import plot_embeddings, plot_queue_use
    from .tail_page import TailImage, choose_images, draw_tail_page
else:
    # Only the pictures of a queue need torch.
    __getattr__, __dir__ = import_on_demand(
        __name__,
        {
            'neighbors_page': ['PixelNeighbors', 'draw_neighbors_page'],
            'operating_point_plot': ['plot_operating_points'],
            'per_class_plot': ['plot_class_differences', 'plot_per_class_iou'],
            'prior_plot': ['plot_class_prior'],
            'queue_plots': ['plot_embeddings', 'plot_queue_use'],
            'tail_page': ['TailImage', 'choose_images', 'draw_tail_page'],
        },
    )

__all__ = [
    'PixelNeighbors',
    'TailImage',
    'choose_images',
    'draw_neighbors_page',
    'draw_tail_page',
    'plot_class_differences',
    'plot_class_prior',
    'plot_embeddings',
    'plot_operating_points',
    'plot_per_class_iou',
    'plot_queue_use',
]
