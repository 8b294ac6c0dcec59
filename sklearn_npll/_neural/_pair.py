"""What every classifier that trains two networks shares."""

import copy

from .._compat import StrOptions
from ._base import NeuralClassifier
from ._docs import learner


@learner
class PairClassifier(NeuralClassifier):
    """Base of the classifiers that train two networks.

    Parameters
    ----------
    {shared_parameters}
    deploy : {"ensemble", "single"}, default="ensemble"
        Whether predictions come from both networks or from the first.
    """

    _parameter_constraints = {
        **NeuralClassifier._parameter_constraints,
        "deploy": [StrOptions({"ensemble", "single"})],
    }
    _n_networks = 2

    deploy: str = "ensemble"

    def _is_single(self):
        if self.deploy not in ("ensemble", "single"):
            raise ValueError(f"deploy must be 'ensemble' or 'single'; got {self.deploy!r}")
        return self.deploy == "single"

    def to_module(self, deploy=None):
        """Return a plain module that maps inputs to class probabilities.

        Parameters
        ----------
        deploy : {"ensemble", "single"}, default=None
            Both networks or the first; by default what the parameter `deploy` says.

        Returns
        -------
        nn.Module
            In evaluation mode, on the CPU. Its input is a float tensor (n, n_features), or images
            (n, channels, H, W) in [0, 1].
        """
        return NeuralClassifier.to_module(self._deployed(deploy))

    def export_onnx(self, path, deploy=None):
        """Write the module of `to_module` as an ONNX file with a free batch size.

        Parameters
        ----------
        path : str or path
            File to write.
        deploy : {"ensemble", "single"}, default=None
            As in `to_module`.

        Raises
        ------
        ImportError
            If the packages onnx and onnxscript are not installed.
        """
        NeuralClassifier.export_onnx(self._deployed(deploy), path)

    def _deployed(self, deploy):
        """Return this classifier with another `deploy`, sharing everything it has learnt."""
        if deploy is None:
            return self
        other = copy.copy(self)
        other.deploy = deploy
        return other
