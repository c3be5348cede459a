"""Plots."""

from .prior_plot import plot_class_prior

__all__ = ['plot_class_prior']
