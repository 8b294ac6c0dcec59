"""Speed and memory of VLMPartialAnnotator.

Throughput: images annotated per second from a uint8 array, against the bare image encoder on
tensors that are preprocessed before the clock starts, in the same process and batch size. The runs
alternate, and the median ratio is reported. Target: at least 0.9.

Memory: peak resident memory of annotating a memory-mapped array of many images, above that of
annotating a few, each in a process of its own. Target: at most 300 MB. Needs Linux.

    python benchmarks/bench_annotate.py
    python benchmarks/bench_annotate.py --n-throughput 512 --n-large 4000 --output /dev/null
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from reporting import peak_memory, write_result

CLASSES = ["t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag"]


def make_annotator(arguments):
    from sklearn_npll import VLMPartialAnnotator

    return VLMPartialAnnotator(
        CLASSES,
        model=arguments.model,
        pretrained=arguments.pretrained,
        batch_size=arguments.batch_size,
    )


def measure_throughput(arguments):
    import torch

    from sklearn_npll._images import to_uint8
    from sklearn_npll.annotators._open_clip import load_open_clip

    rng = np.random.default_rng(0)
    shape = (arguments.n_throughput, *arguments.shape)
    X = rng.integers(0, 256, size=shape, dtype=np.uint8)
    annotator = make_annotator(arguments).fit(X)
    encoder = load_open_clip(arguments.model, arguments.pretrained)
    scale, shift = encoder._normalisation
    ready = []
    for start in range(0, len(X), arguments.batch_size):
        pixels = encoder.prepare(to_uint8(X[start : start + arguments.batch_size]))
        pixels = torch.addcmul(shift, pixels.float().to(encoder.device), scale)
        # The layout in which the encoder itself is fastest.
        ready.append(pixels.contiguous(memory_format=torch.channels_last))

    def bare():
        with torch.inference_mode():
            for batch in ready:
                encoder.model.encode_image(batch).cpu().numpy()

    def annotate():
        return annotator.transform(X).candidates

    seconds = {"bare": [], "annotate": []}
    cpu_seconds = {"bare": [], "annotate": []}
    for repeat in range(arguments.repeats + 1):
        for name, run in (("bare", bare), ("annotate", annotate)):
            start, cpu_start = time.perf_counter(), time.process_time()
            run()
            if repeat:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
                cpu_seconds[name].append(time.process_time() - cpu_start)
    ratios = [b / a for b, a in zip(seconds["bare"], seconds["annotate"])]
    return {
        "n_images": len(X),
        "image_shape": list(arguments.shape),
        "n_templates": len(annotator.templates_),
        "images_per_second_bare": len(X) / statistics.median(seconds["bare"]),
        "images_per_second_annotate": len(X) / statistics.median(seconds["annotate"]),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        # Steadier than the clock on a machine that has other work.
        "ratio_of_cpu_seconds": min(cpu_seconds["bare"]) / min(cpu_seconds["annotate"]),
        "target": 0.9,
    }


def measure_memory(arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        shape = (arguments.n_large, *arguments.shape)
        X = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        rng = np.random.default_rng(0)
        for start in range(0, len(X), 1000):
            part = X[start : start + 1000]
            part[:] = rng.integers(0, 256, size=part.shape, dtype=np.uint8)
        X.flush()
        del X, part
        peaks = {}
        for n in (arguments.n_small, arguments.n_large):
            command = [sys.executable, __file__, *sys.argv[1:], "--child", str(path), str(n)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks[n] = float(done.stdout)
    return {
        "image_shape": list(arguments.shape),
        "peak_mb": {str(n): peak for n, peak in peaks.items()},
        "extra_mb": peaks[arguments.n_large] - peaks[arguments.n_small],
        "target": 300,
    }


def annotate_in_child(arguments):
    path, n = arguments.child
    X = np.load(path, mmap_mode="r")[: int(n)]
    labels = make_annotator(arguments).fit_transform(X)
    assert len(labels) == int(n)
    print(peak_memory())


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fashion-clip-tiny")
    parser.add_argument("--pretrained")
    parser.add_argument("--shape", type=int, nargs="+", default=[28, 28], help="of one image")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--n-throughput", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--n-small", type=int, default=2000)
    parser.add_argument("--n-large", type=int, default=200_000)
    parser.add_argument("--output", help="default: benchmarks/results/annotate.json")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.child:
        return annotate_in_child(arguments)
    result = {
        "model": arguments.model,
        "batch_size": arguments.batch_size,
        "throughput": measure_throughput(arguments),
        "memory": measure_memory(arguments),
    }
    write_result("annotate", result, arguments.output)


if __name__ == "__main__":
    main()
