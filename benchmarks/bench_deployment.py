"""What is handed on after training: size, speed and accuracy of student and annotator.

The student learns what the quickstart learns: 6,000 images of Fashion-MNIST, annotated by the
shipped model, 52 epochs. Trained students are kept in ``build/deployment``. Every form of them, and
of the model they learned from, is then measured in one process, in turns, so that whatever else
the machine does falls on all alike; there are medians and minima over the turns, of the time on the
clock and of the processor time. ONNX rows need ``pip install onnx onnxscript onnxruntime`` and are
left out without.

What the same arithmetic says about larger pairs is under "arithmetic"; nothing of it is measured.

    python benchmarks/bench_deployment.py
    python benchmarks/bench_deployment.py --quick --output /dev/null
"""

import argparse
import time
import warnings
from collections import defaultdict
from copy import copy
from dataclasses import dataclass
from functools import partial
from importlib import metadata, util
from pathlib import Path

import joblib
import numpy as np
import torch
from bench_fashion import QUICKSTART, load
from reporting import ROOT, write_result
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sklearn_npll import CoRegClassifier, VLMPartialAnnotator
from sklearn_npll._neural._networks import PreActResNet, build_network
from sklearn_npll.datasets import load_fashion_mnist

STUDENTS = {"default": "auto"} | {
    name: partial(PreActResNet, widths=widths, depth=1, stem_width=widths[0], stem_stride=2)
    for name, widths in {"half": (8, 16, 32), "quarter": (4, 8, 16)}.items()
}
BATCH = 64
SHIPPED = ROOT / "sklearn_npll" / "models" / "fashion-clip" / "open_clip_model.safetensors"
HAS_RUNTIME = all(map(util.find_spec, ("onnx", "onnxscript", "onnxruntime")))


@dataclass
class Contender:
    """A form of a network that is measured."""

    name: str
    call: object  # maps some of `inputs` to probabilities
    inputs: object  # of all test images, preprocessed as far as the form asks for
    n_bytes: int  # of the file that has to be handed on
    network: object  # whose parameters are counted
    reference: str = None  # whose predictions it should repeat


class ZeroShot(nn.Module):
    """The annotator without its text tower: preprocessed images to probabilities."""

    def __init__(self, annotator):
        super().__init__()
        prompted = annotator._prompted
        self.visual = prompted.encoder.model.visual
        self.scale = prompted.encoder.logit_scale
        self.register_buffer("text", torch.from_numpy(prompted.text))

    def forward(self, x):
        """Mean over templates of the softmax over classes, (n, n_classes)."""
        x = nn.functional.normalize(self.visual(x), dim=1)
        logits = self.scale * torch.einsum("nd,tcd->ntc", x, self.text)
        return logits.softmax(2).mean(1)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def multiply_adds(network, x):
    """Count the multiply-adds of convolutions and matrix products in a forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    return counter.get_total_flops() // 2


# -- what is measured --------------------------------------------------------------------------


def train(name, labels, epochs, folder):
    """Train a student, or load the one that was."""
    path = folder / f"{name}-{len(labels)}-{epochs}.joblib"
    if not path.exists():
        options = {**QUICKSTART, "max_epochs": epochs, "checkpoint_dir": path.with_suffix("")}
        student = CoRegClassifier(STUDENTS[name], random_state=0, verbose=1, **options)
        joblib.dump(student.fit(labels), path)
    return joblib.load(path)


def saved_size(module, path):
    torch.save(module.state_dict(), path)
    return path.stat().st_size


def session(path, threads):
    """Load an ONNX file as a function of an array."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    runner = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: runner.run(None, {"input": x})[0]


def quantise(path, calibration):
    """Write int8 forms of an ONNX file; return their kinds and paths.

    "dynamic" rounds the weights, and the activations by the range of each batch; "static" rounds
    the activations by the ranges on calibration inputs.
    """
    from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        batches = iter(np.array_split(calibration, 8))

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch}

    paths = {kind: path.with_suffix(f".{kind}.onnx") for kind in ("dynamic", "static")}
    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_dynamic(prepared, paths["dynamic"])
    quantize_static(prepared, paths["static"], Reader(), per_channel=True)
    return paths


def onnx_contenders(name, path, inputs, calibration, network, threads, reference):
    """Return the contenders of an ONNX file: as it is and quantised."""
    files = {"ONNX": path}
    if calibration is not None:
        kinds = quantise(path, calibration)
        files |= {f"ONNX, int8 {kind}": quantised for kind, quantised in kinds.items()}
    return [
        Contender(
            f"{name}, {form}", session(f, threads), inputs, f.stat().st_size, network, reference
        )
        for form, f in files.items()
    ]


def annotator_contenders(annotator, images, calibration, folder, threads):
    """Return the forms of the annotator: as used, as a module, the bare tower, ONNX."""
    module, encoder = ZeroShot(annotator).eval(), annotator._prompted.encoder
    model = encoder.model

    def prepare(images):
        pixels = encoder.prepare(images[..., None]).float().expand(-1, 3, -1, -1)
        scale, shift = encoder._normalisation
        return (pixels * scale + shift).contiguous()

    inputs, size = prepare(images), SHIPPED.stat().st_size
    whole, alone = "VLM, predict_proba", "VLM, image tower and class embeddings"
    contenders = [
        Contender(whole, annotator.predict_proba, images, size, model),
        Contender("VLM, encode_image", model.encode_image, inputs, size, model),
        Contender(alone, module, inputs, saved_size(module, folder / "tower.pt"), module, whole),
    ]
    if HAS_RUNTIME:
        path = folder / "tower.onnx"
        torch.onnx.export(
            module,
            (inputs[:2],),
            path,
            input_names=["input"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        arrays = inputs.numpy(), prepare(calibration).numpy()
        contenders += onnx_contenders(alone, path, *arrays, module, threads, whole)
    return contenders


def student_contenders(name, student, images, calibration, folder, threads):
    """Return the forms of a student: as used, as modules of one or both networks, ONNX."""

    def prepare(images):
        return np.float32(images[:, None]) / np.float32(255)

    contenders, inputs = [], prepare(images)
    for deploy, part in (("ensemble", "both networks"), ("single", "average")):
        own = f"student ({name}), {part}"
        deployed, module = copy(student).set_params(deploy=deploy), student.to_module(deploy)
        path, as_module = folder / "student.joblib", f"{own}, module"
        joblib.dump(deployed, path)
        size, call = path.stat().st_size, deployed.predict_proba
        contenders.append(Contender(f"{own}, predict_proba", call, images, size, module, as_module))
        forms = {"module": module}
        if deploy == "single":
            with warnings.catch_warnings():  # of torchao, which takes its place one day
                warnings.simplefilter("ignore")
                quantised = torch.ao.quantization.quantize_dynamic(module, {nn.Linear})
            forms["module, int8 linear layer"] = quantised
        for form, network in forms.items():
            size = saved_size(network, folder / "student.pt")
            tensor = torch.from_numpy(inputs)
            contenders.append(Contender(f"{own}, {form}", network, tensor, size, module, as_module))
        if HAS_RUNTIME:
            path = folder / f"{name}-{deploy}.onnx"
            student.export_onnx(path, deploy)
            ranges = prepare(calibration) if deploy == "single" else None
            contenders += onnx_contenders(own, path, inputs, ranges, module, threads, as_module)
    return contenders


# -- measuring ---------------------------------------------------------------------------------


def quality(contenders, y):
    """Accuracy of each contender, and how often it says what its reference says."""
    predicted, figures = {}, {}
    for c in contenders:
        n = len(c.inputs)
        parts = [np.asarray(c.call(c.inputs[i : i + 500])) for i in range(0, n, 500)]
        predicted[c.name] = np.concatenate(parts).argmax(1)
    for c in contenders:
        if c.name == "VLM, encode_image":  # which gives embeddings
            figures[c.name] = {"accuracy": None, "agreement": None}
            continue
        same = None if c.reference is None else predicted[c.name] == predicted[c.reference]
        figures[c.name] = {
            "accuracy": float(np.mean(predicted[c.name] == y)),
            "agreement": None if same is None else float(np.mean(same)),
        }
    return figures


def time_calls(contenders, size, rounds, calls):
    """Time calls on `size` images, all contenders in every round; milliseconds a call."""
    clocks = {"ms": time.perf_counter, "cpu_ms": time.process_time}
    times = defaultdict(list)
    for turn in range(rounds):
        for c in contenders:
            for i in range(calls + 1):
                start = (turn * (calls + 1) + i) * size % (len(c.inputs) - size + 1)
                x = c.inputs[start : start + size]
                before = [clock() for clock in clocks.values()]
                c.call(x)
                after = [clock() for clock in clocks.values()]
                if i:  # the first call finds caches that the others have filled
                    times[c.name].append(np.subtract(after, before) * 1e3)
    return {
        name: {
            f"{clock}{suffix}": float(f([t[k] for t in rows]))
            for k, clock in enumerate(clocks)
            for suffix, f in (("", np.median), ("_min", np.min))
        }
        for name, rows in times.items()
    }


def measure(contenders, known, threads, rounds):
    """Return one row a contender."""
    one = time_calls(contenders, 1, 4 * rounds, 5)
    batch = time_calls(contenders, BATCH, rounds, 1)
    return [
        {
            "name": c.name,
            "threads": threads,
            "bytes": c.n_bytes,
            "parameters": parameters(c.network),
            **known[c.name],
            "one": one[c.name],
            "batch": batch[c.name],
            "images_per_second": BATCH / batch[c.name]["ms"] * 1e3,
        }
        for c in contenders
    ]


# -- arithmetic --------------------------------------------------------------------------------


def transformer_parameters(width, layers):
    """Count the parameters of blocks: attention 4 d^2 + 4 d, MLP 8 d^2 + 5 d, two norms 4 d."""
    return layers * (12 * width**2 + 13 * width)


def transformer_macs(tokens, width, layers):
    """Count multiply-adds of blocks: 12 d^2 a token, and 2 d for each pair of tokens."""
    return layers * (12 * tokens * width**2 + 2 * tokens**2 * width)


def vit_b_32(size=224, patch=32, width=768, layers=12, out=512):
    """Parameters and multiply-adds of CLIP's ViT-B/32, from its dimensions."""
    patches, pixels = (size // patch) ** 2, 3 * patch**2
    tokens = patches + 1  # the class token
    image = pixels * width + (1 + tokens) * width + 4 * width + width * out
    image += transformer_parameters(width, layers)
    vocabulary, context, text_width = 49_408, 77, 512
    text = (vocabulary + context + 2 + out) * text_width + transformer_parameters(text_width, 12)
    macs = patches * pixels * width + transformer_macs(tokens, width, layers) + width * out
    return {
        "parameters": image + text + 1,  # the temperature
        "image_tower_parameters": image,
        "image_tower_macs": macs,
    }


def arithmetic(name, student):
    """Compare networks that a student may be with ViT-B/32, by counting."""
    vlm = vit_b_32()
    networks = {f"{name} student, 28 x 28 grey": (student.to_module("single"), (1, 28, 28))}
    for name, size in (("auto", 64), ("preact_resnet18", 32), ("resnet18", 64), ("resnet18", 224)):
        shape = (3, size, size)
        networks[f"{name}, {size} x {size} colour"] = (build_network(name, shape, 10), shape)
    rows = {}
    for name, (network, shape) in networks.items():
        n, macs = parameters(network), multiply_adds(network.eval(), torch.zeros(1, *shape))
        rows[name] = {
            "parameters": n,
            "bytes_fp32": 4 * n,
            "macs": macs,
            "times_smaller_than_whole": vlm["parameters"] / n,
            "times_smaller_than_image_tower": vlm["image_tower_parameters"] / n,
            "times_fewer_macs": vlm["image_tower_macs"] / macs,
        }
    return {"ViT-B/32": {**vlm, "bytes_fp32": 4 * vlm["parameters"]}, "networks": rows}


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "deployment")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="few images, one epoch, one student")
    parser.add_argument("--output", help="default: benchmarks/results/deployment.json")
    options = parser.parse_args(arguments)
    options.n_train, options.n_test, options.epochs = 6000, 5000, QUICKSTART["max_epochs"]
    if options.quick:
        options.n_train, options.n_test, options.epochs, options.rounds = 200, 200, 1, 2
        options.students = options.students[:1]
    return options


def run(options):
    """Train or load the students and measure everything."""
    options.folder.mkdir(parents=True, exist_ok=True)
    (X, _), _, (images, y) = load(options.n_train, 0)
    images, y = images[: options.n_test], y[: options.n_test]
    prompts = load_fashion_mnist("test").class_prompts
    labels = VLMPartialAnnotator(prompts, cache_dir=options.folder / "cache").fit_transform(X)
    students = {
        name: train(name, labels, options.epochs, options.folder) for name in options.students
    }
    annotator = VLMPartialAnnotator(prompts).fit(X)  # without the cache, which would answer
    for student in students.values():  # all of them give their probabilities in this order
        np.testing.assert_array_equal(student.classes_, annotator.classes_)
    codes = (y[:, None] == annotator.classes_).argmax(axis=1)
    rows, known = [], None
    for threads in options.threads:
        torch.set_num_threads(threads)
        rest = images, X[:400], options.folder, threads
        contenders = annotator_contenders(annotator, *rest)
        for name, student in students.items():
            contenders += student_contenders(name, student, *rest)
        with torch.no_grad():
            known = known or quality(contenders, codes)
            print(f"timing with {threads} threads", flush=True)
            rows += measure(contenders, known, threads, options.rounds)
    tower = annotator._prompted.encoder
    pixels = tower.prepare(images[:1, ..., None]).float().expand(-1, 3, -1, -1)
    macs = {"VLM, image tower": multiply_adds(tower.model.visual, pixels)}
    pixels = torch.zeros(1, 1, *images.shape[1:])
    for name, student in students.items():
        macs[f"student ({name}), average"] = multiply_adds(student.to_module("single"), pixels)
    return {
        "n_train": options.n_train,
        "n_test": options.n_test,
        "epochs": options.epochs,
        "batch": BATCH,
        "onnxruntime": metadata.version("onnxruntime") if HAS_RUNTIME else None,
        "macs": macs,
        "rows": rows,
        "arithmetic": arithmetic(*next(iter(students.items()))),
    }


if __name__ == "__main__":
    options = parse()
    write_result("deployment", run(options), options.output)
