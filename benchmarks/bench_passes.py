"""What memory format, precision, compilation and optimiser do to a training step on images.

One step of "auto" (374 rows, the two mixed views of 187) is timed as the package makes it and with
one change each, all in turns. The time is of the processor; compilation itself is not counted.

Usage::

    python benchmarks/bench_passes.py [--repeats 15]
"""

import argparse
import contextlib
import statistics
import time

import torch
from reporting import write_result

from sklearn_npll._neural._networks import NetworkEnsemble

CHANGES = ("as it is", "contiguous", "bf16", "compiled", "foreach SGD", "fused SGD")


def make_step(change):
    """Return a function that makes one step."""
    torch.manual_seed(0)
    mean, scale = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    network = NetworkEnsemble("auto", (1, 28, 28), 10, mean, scale, None, 1).networks[0].train()
    inputs, label = torch.rand(374, 1, 28, 28), torch.randint(10, (374,))
    forward = network
    if change == "contiguous":
        network.to(memory_format=torch.contiguous_format)

        def forward(x):
            return network.classifier(network.backbone((x - mean) / scale))

    if change == "compiled":
        forward = torch.compile(network)
    options = {"foreach SGD": {"foreach": True}, "fused SGD": {"fused": True}}.get(change, {})
    optimizer = torch.optim.SGD(
        network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, **options
    )

    def step():
        precision = torch.autocast("cpu", torch.bfloat16) if change == "bf16" else None
        with precision or contextlib.nullcontext():
            logits = forward(inputs).float()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, label).backward()
        optimizer.step()

    return step


def main():
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output")
    args = parser.parse_args()
    steps = {change: make_step(change) for change in CHANGES}
    for step in steps.values():
        step()
        step()
    times = {change: [] for change in CHANGES}
    for _ in range(args.repeats):
        for change, step in steps.items():
            start = time.process_time()
            step()
            times[change].append(time.process_time() - start)
    median = {change: statistics.median(values) for change, values in times.items()}
    ratio = {change: value / median["as it is"] for change, value in median.items()}
    write_result("passes", {"ratio": ratio, "seconds": times}, args.output)


if __name__ == "__main__":
    main()
