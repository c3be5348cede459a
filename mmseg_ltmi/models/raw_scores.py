"""A warning where raw scores, which nobody reads any more, go into a traced or exported graph."""

from __future__ import annotations

import warnings

import torch

from mmseg_ltmi.core.posterior import ScoreReader

# False under torch.compile, which trains too. An older torch knows only its ONNX exporter.
_is_exporting = getattr(
    getattr(torch, 'compiler', None), 'is_exporting', torch.onnx.is_in_onnx_export
)


def warn_where_exported(reader: ScoreReader | None) -> None:
    """Warn if a graph is being made of raw scores that ``predict`` would change.

    Args:
        reader: what reads the scores; None where nothing does.
    """
    if reader is None or reader.is_read or not reader.changes_scores:
        return
    if _is_exporting() or torch.jit.is_tracing():
        _warn()


def _warn() -> None:
    warnings.warn(
        'the traced or exported graph gives raw scores: what predict() adds to them (the natural '
        'shift, tau_test, an operating point) is not in it, and their argmax is another decision. '
        "Run 'mmseg-ltmi convert CHECKPOINT STOCK.pth' and export the stock config with STOCK.pth, "
        'or export mmseg_ltmi.models.segmentors.ReadScores(model): see docs/export.md',
        stacklevel=3,
    )


# As torch.compiler.assume_constant_result does, which would import dynamo, half a second: dynamo
# calls the function where it makes a graph, and would leave a plain warning out.
_warn._dynamo_marked_constant = True  # type: ignore[attr-defined]
