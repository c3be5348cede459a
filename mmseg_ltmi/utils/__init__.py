"""What the tools share."""

from .tools import add_cfg_options, operating_point_options, run_mmseg_tool, with_operating_point

__all__ = ['add_cfg_options', 'operating_point_options', 'run_mmseg_tool', 'with_operating_point']
