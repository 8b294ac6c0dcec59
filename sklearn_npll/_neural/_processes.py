"""Training in several processes: who computes what, and how all of them stay the same.

Every process holds all rows, draws the same random numbers and so makes the same batches. It passes
its own part of a batch through the backbone and receives the embeddings of the others; what follows
them, up to the loss, is computed of the whole batch by each. A loss may therefore compare any rows,
and no method of learning has to know that it does not train alone.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from .._device import resolve_device

SUPPORTED = ("NO", "MULTI_CPU", "MULTI_GPU")


@dataclass(frozen=True)
class Processes:
    """The processes of a training, of which this is one. The default is a process on its own.

    Parameters
    ----------
    rank : int
        Number of this process; 0 is the main one.
    size : int
        Number of processes, of the default group of `torch.distributed` if it is not 1.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self):
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    # -- one process for all -------------------------------------------------------------------

    def from_main(self, value):
        """Return the main process's value, of a type that can be pickled."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def on_main(self, function, *args):
        """Call a function in the main process only, and return in each what it returned.

        Raises
        ------
        RuntimeError
            In the other processes, if it raised an error in the main one.
        """
        if self.size == 1:
            return function(*args)
        value = error = None
        if self.is_main:
            try:
                value = function(*args)
            except BaseException as raised:  # the others wait, whatever it is
                error = raised
        value, failure = self.from_main((value, None if error is None else repr(error)))
        if error is not None:
            raise error
        if failure is not None:
            raise RuntimeError(f"the main process failed: {failure}")
        return value

    def broadcast(self, tensors):
        """Overwrite tensors with those of the main process."""
        if self.size == 1:
            return
        for tensor in tensors:
            content = tensor.detach().contiguous()  # images have another memory format
            dist.broadcast(content, 0)
            tensor.detach().copy_(content)

    # -- are all the same? ---------------------------------------------------------------------

    def check_same(self, facts):
        """Check that all processes have been given the same.

        Parameters
        ----------
        facts : dict
            What is compared, by its name.

        Raises
        ------
        ValueError
            In every process, if a fact differs.
        """
        if self.size == 1:
            return
        everyone = [None] * self.size
        dist.all_gather_object(everyone, facts)
        expected = everyone[0]
        for rank, theirs in enumerate(everyone):
            for name in expected | theirs:
                if theirs.get(name) != expected.get(name):
                    raise ValueError(
                        f"all processes must train the same, but {name} is {theirs.get(name)!r} in "
                        f"process {rank} and {expected.get(name)!r} in process 0. Give every "
                        "process the same parameters, and the same data in the same order; set "
                        "every random_state to an int"
                    )

    def check_together(self, tensors, device):
        """Check, by their sums, that tensors are the same in all processes.

        Raises
        ------
        RuntimeError
            In every process, if a sum differs.
        """
        if self.size == 1:
            return
        sums = [t.sum(dtype=torch.float64).nan_to_num().item() for t in tensors]
        everyone = torch.zeros(self.size, len(sums), dtype=torch.float64, device=device)
        everyone[self.rank] = torch.tensor(sums, dtype=torch.float64)
        dist.all_reduce(everyone)
        apart = (everyone != everyone[0]).any(1).nonzero()[:, 0].tolist()
        if apart:
            raise RuntimeError(
                f"the training state of the processes {apart} is no longer that of process 0. "
                "Networks must not normalise over a batch by other means than "
                "torch.nn.functional.batch_norm, callbacks must do the same in every process, and "
                "all processes need the same kind of machine"
            )

    # -- one batch by all ----------------------------------------------------------------------

    def map_rows(self, function, x):
        """Apply a network to a batch, each process to its part of the rows.

        A batch normalisation in training takes its statistics of all rows. Other random numbers of
        the network, as for dropout, differ between the processes and leave the shared ones alone.
        A batch with fewer rows than processes is computed by each of them.

        Parameters
        ----------
        function : callable
            Maps a batch (n, ...) to (n, d), row by row but for the batch normalisation.
        x : Tensor of shape (n, ...)
            The same in all processes.

        Returns
        -------
        Tensor of shape (n, d)
            The same in all processes. Its gradient must also be the same, and is passed on scaled,
            so that `average_gradients` gives that of the whole batch.
        """
        if len(x) < self.size or self.size == 1:
            return function(x)
        own = x.tensor_split(self.size)[self.rank]
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            torch.manual_seed(torch.randint(2**62, ()).item() + self.rank)
            with _SyncedBatchNorm(self):
                result = function(own)
        return _GatherRows.apply(result, len(x), self)

    def average_gradients(self, parameters):
        """Replace the gradients of parameters by their means over the processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        parts = together.div_(self.size).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts):
            gradient.copy_(part.view_as(gradient))


ALONE = Processes()


class _GatherRows(torch.autograd.Function):
    """Put the rows of all processes together; see `Processes.map_rows` for the gradient."""

    @staticmethod
    def forward(ctx, own, n, processes):
        ctx.processes = processes
        # not every backend sums half precision, and zeros change nothing
        whole = own.new_zeros(n, *own.shape[1:], dtype=_at_least_single(own))
        whole.tensor_split(processes.size)[processes.rank].copy_(own)
        dist.all_reduce(whole)
        return whole.to(own.dtype)

    @staticmethod
    def backward(ctx, gradient):
        processes = ctx.processes
        own = gradient.tensor_split(processes.size)[processes.rank]
        return own * processes.size, None, None


class _GatherStatistics(torch.autograd.Function):
    """Stack vectors (m,) of all processes to (size, m); the gradient is that of all of them."""

    @staticmethod
    def forward(ctx, own, processes):
        ctx.processes = processes
        whole = own.new_zeros(processes.size, len(own))
        whole[processes.rank] = own
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient[ctx.processes.rank], None


class _SyncedBatchNorm(TorchFunctionMode):
    """Within it, a batch normalisation takes its statistics of the rows of all processes.

    It replaces the function, so that it reaches whatever modules call it. torch's own module for
    this works on CUDA only.
    """

    def __init__(self, processes):
        super().__init__()
        self.processes = processes

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.batch_norm:
            return self.batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def batch_norm(
        self, input, running_mean, running_var, weight=None, bias=None, training=False,
        momentum=0.1, eps=1e-5,
    ):  # fmt: skip
        """Normalise like `torch.nn.functional.batch_norm`."""
        if not training:
            return F.batch_norm(
                input, running_mean, running_var, weight, bias, training, momentum, eps
            )
        x = input.to(_at_least_single(input))
        axes = [0, *range(2, x.ndim)]
        variance, mean = torch.var_mean(x, axes, correction=0)
        count = x.new_full((1,), x.numel() // len(mean))
        own = torch.cat([count, mean, variance])
        counts, means, variances = _GatherStatistics.apply(own, self.processes).split(
            [1, len(mean), len(mean)], 1
        )
        mean, variance = pooled_moments(counts, means, variances)
        if running_mean is not None:
            with torch.no_grad():
                unbiased = variance / (1 - 1 / counts.sum())
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale = (variance + eps).rsqrt()
        if weight is not None:
            scale = scale * weight
        result = (x - mean.view(shape)) * scale.view(shape)
        if bias is not None:
            result = result + bias.view(shape)
        return result.to(input.dtype)


def pooled_moments(counts, means, variances):
    """Mean and variance of the union of groups of values.

    Parameters
    ----------
    counts : Tensor of shape (n_groups, 1)
        Number of values of each group.
    means, variances : Tensor of shape (n_groups, C)
        Of each group; the variances are divided by the numbers of values.

    Returns
    -------
    mean, variance : Tensor of shape (C,)
    """
    share = counts / counts.sum()
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0)


def _at_least_single(tensor):
    return torch.promote_types(tensor.dtype, torch.float32)


def join_processes(accelerator, device, precision):
    """Join the processes that accelerate finds this one among.

    Parameters
    ----------
    accelerator : {"auto"} or None
        None stays alone.
    device : str
        See `resolve_device`.
    precision : {"fp32", "bf16"}
        Precision of the forward passes.

    Returns
    -------
    processes : Processes
    device : str
        Device of this process.

    Raises
    ------
    ImportError
        If accelerate is wanted and not installed.
    ValueError
        If accelerate has been set up for what is not supported, or for another device or precision.
    """
    resolved = resolve_device(device)
    if accelerator is None:
        return ALONE, resolved
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ImportError("accelerator='auto' needs `pip install accelerate`") from error
    # without CUDA, accelerate joins no processes unless it is told to use the CPU
    setup = Accelerator(cpu=torch.device(resolved).type == "cpu")
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if setup.num_processes != launched:
        raise ValueError(
            f"{launched} processes have been launched, but accelerate trains in "
            f"{setup.num_processes}: make no Accelerator before the fit, or make it with cpu="
            f"{resolved == 'cpu'}"
        )
    if setup.distributed_type.value not in SUPPORTED:
        raise ValueError(
            f"accelerate is set up for {setup.distributed_type.value}, but only several CPU or GPU "
            "processes with the whole network in each are supported: launch with --multi_gpu"
        )
    if setup.mixed_precision not in ("no", "bf16" if precision == "bf16" else "no"):
        raise ValueError(
            f"accelerate is set up for mixed_precision={setup.mixed_precision!r}, but precision="
            f"{precision!r}: launch with --mixed_precision no, and set the precision here"
        )
    if setup.gradient_accumulation_steps != 1:
        raise ValueError(
            "gradients are not accumulated, but accelerate is set up for "
            f"gradient_accumulation_steps={setup.gradient_accumulation_steps}: set it to 1, and "
            "`batch_size` to what all processes compute in a step"
        )
    if setup.num_processes == 1:
        return ALONE, resolved
    kind = setup.device.type
    if device not in ("auto", kind):
        raise ValueError(
            f"device={device!r}, but accelerate has given this process {str(setup.device)!r}: set "
            "device='auto'"
        )
    return (
        Processes(setup.process_index, setup.num_processes),
        "cpu" if kind == "cpu" else str(setup.device),
    )
