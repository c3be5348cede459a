"""Plots."""

from .per_class_plot import plot_per_class_iou
from .prior_plot import plot_class_prior

__all__ = ['plot_class_prior', 'plot_per_class_iou']
