"""Records the pixel features of any network: what goes into its classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class FeatureRecorder:
    """Keeps what goes into and comes out of a network's classifier in each forward pass.

    The classifier is the layer that is named, or the network's last convolution, in the order of
    ``modules()``, if that is 1x1. The network's code and its state dict stay as they are, and a
    copy of the network, such as one of averaged weights, is without the recorder. As a context
    manager, or by :meth:`close`, it lets go of the network again.

    Args:
        network: any module.
        classifier: the layer, or its name in ``named_modules()``; None takes the last convolution.
            Name it where an auxiliary head comes last.

    Attributes:
        classifier: the layer.
        features: (B, D, h, w), of the last forward pass, with its graph.
        logits: (B, C, h, w), likewise.

    Raises:
        ValueError: there is no such layer, or the last convolution is not 1x1.

    Examples:
        >>> recorder = FeatureRecorder(network)
        >>> contrast = PixelContrast(recorder.channels, num_classes, class_prior)
        >>> logits = network(images)
        >>> terms = contrast(recorder.features, labels)
    """

    def __init__(self, network: nn.Module, classifier: nn.Module | str | None = None) -> None:
        self.classifier: Any = _find(network, classifier)
        self._features: Tensor | None = None
        self._logits: Tensor | None = None
        self._handle = self.classifier.register_forward_hook(_Hook(self))

    @property
    def channels(self) -> int:
        """D, channels of the features.

        Raises:
            ValueError: the classifier is no convolution or linear layer, which would tell them.
        """
        for name in ('in_channels', 'in_features'):
            if hasattr(self.classifier, name):
                return getattr(self.classifier, name)
        raise ValueError(
            f'a {type(self.classifier).__name__} does not tell how many channels it takes: name '
            'the convolution or the linear layer that classifies (classifier=)'
        )

    @property
    def has_recorded(self) -> bool:
        """Whether there was a forward pass, and the classifier took part in it."""
        return self._features is not None

    @property
    def features(self) -> Tensor:
        return _recorded(self._features)

    @property
    def logits(self) -> Tensor:
        return _recorded(self._logits)

    def clear(self) -> None:
        """Let go of what was recorded."""
        self._features = self._logits = None

    def close(self) -> None:
        """Record no more, and let go of what was recorded."""
        self._handle.remove()
        self.clear()

    def __enter__(self) -> FeatureRecorder:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _record(self, features: Tensor, logits: Tensor) -> None:
        self._features, self._logits = features, logits


class _Hook:
    """The forward hook, which a copied or pickled network has without its recorder.

    With it the copy would hold tensors that have a graph, which cannot be copied, and would keep
    its own features for nobody.
    """

    def __init__(self, recorder: FeatureRecorder | None = None) -> None:
        self.recorder = recorder

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self.recorder is not None:
            self.recorder._record(inputs[0], output)

    def __reduce__(self) -> tuple[type[_Hook], tuple]:
        return _Hook, ()


def _recorded(value: Tensor | None) -> Tensor:
    if value is None:
        raise RuntimeError(
            'nothing is recorded: the classifier took no part in a forward pass. Run the '
            'network first, or name the layer that classifies (classifier=)'
        )
    return value


def _find(network: nn.Module, classifier: nn.Module | str | None) -> nn.Module:
    modules = dict(network.named_modules())
    if isinstance(classifier, nn.Module):
        if classifier not in modules.values():
            raise ValueError('the classifier is no layer of the network')
        return classifier
    if classifier is not None:
        if classifier not in modules:
            raise ValueError(f'the network has no layer {classifier!r}: see named_modules()')
        return modules[classifier]
    found = [(name, m) for name, m in modules.items() if isinstance(m, nn.Conv2d)]
    if not found:
        raise ValueError(
            'the network has no convolution: name the layer that classifies (classifier=)'
        )
    # A 1x1 convolution before it need not be the classifier: squeeze and excitation has some.
    name, last = found[-1]
    if last.kernel_size != (1, 1):
        raise ValueError(
            f'the last convolution of the network, {name!r}, is not 1x1: name the layer that '
            f'classifies (classifier={name!r}, if it is that one)'
        )
    return last
