"""Plots."""

from .neighbors_page import PixelNeighbors, draw_neighbors_page
from .operating_point_plot import plot_operating_points
from .per_class_plot import plot_class_differences, plot_per_class_iou
from .prior_plot import plot_class_prior
from .queue_plots import plot_embeddings, plot_queue_use
from .tail_page import TailImage, choose_images, draw_tail_page

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
