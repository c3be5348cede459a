import mmseg_ltmi  # noqa: F401  before mmseg.models, which needs its stand-in for compiled ops
