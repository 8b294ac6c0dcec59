"""Trained networks for use without the package: plain modules and ONNX files."""

import importlib
import inspect

import torch
from sklearn.utils.validation import check_is_fitted

from ._networks import DeployedNetwork


class DeploymentMixin:
    """Hands the networks of a classifier out."""

    def to_module(self):
        """Return a plain module that maps inputs to class probabilities.

        Returns
        -------
        nn.Module
            In evaluation mode, on the CPU. Its input is a float tensor (n, n_features), or images
            (n, channels, H, W) in [0, 1].
        """
        check_is_fitted(self, "net_")
        n_networks = 1 if self._is_single() else self._n_networks
        return DeployedNetwork(list(self.net_.module_.networks)[:n_networks]).cpu().eval()

    def export_onnx(self, path):
        """Write the module of `to_module` as an ONNX file with a free batch size.

        Parameters
        ----------
        path : str or path
            File to write.

        Raises
        ------
        ImportError
            If the packages onnx and onnxscript are not installed.
        """
        module = self.to_module()
        if self.image_shape_ is None:
            shape = (self.n_features_in_,)
        else:
            height, width, channels = self.image_shape_
            shape = (channels, height, width)
        try:
            for name in ("onnx", "onnxscript"):
                importlib.import_module(name)
        except ImportError as error:
            raise ImportError("export_onnx needs `pip install onnx onnxscript`") from error
        if "dynamic_shapes" in inspect.signature(torch.onnx.export).parameters:
            options = {"dynamic_shapes": ({0: torch.export.Dim("n")},), "dynamo": True}
            options["external_data"] = False  # else the weights go into a second file
        else:  # torch < 2.5
            options = {"dynamic_axes": {"input": {0: "n"}, "probabilities": {0: "n"}}}
        torch.onnx.export(
            module,
            (torch.zeros(2, *shape),),
            str(path),
            input_names=["input"],
            output_names=["probabilities"],
            verbose=False,
            **options,
        )
