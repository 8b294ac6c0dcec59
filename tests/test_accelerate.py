"""Training in several processes: the parts, and whole fits in two of them on the CPU."""

import os
import pickle
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import two_processes as script
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_npll import CoRegClassifier
from sklearn_npll._neural._processes import ALONE, Processes, join_processes, pooled_moments

FOLDER = Path(__file__).parent
# Sums of half a batch are rounded otherwise than those of a whole one.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
two_ranks = pytest.mark.parametrize("rank", [0, 1])


def run_two_processes(folder, environ, seconds=600):
    """Run the script as torchrun would, twice; a hang fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {**environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    logs = [folder / f"{rank}.log" for rank in (0, 1)]
    with ExitStack() as files:  # each process has its own copy of its file
        workers = [
            subprocess.Popen(
                [sys.executable, str(FOLDER / "two_processes.py"), str(folder)],
                env={**environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
                stdout=files.enter_context(log.open("w")),
                stderr=subprocess.STDOUT,
            )
            for rank, log in enumerate(logs)
        ]
    deadline = time.monotonic() + seconds
    try:
        while any(worker.poll() is None for worker in workers):
            if time.monotonic() > deadline or any(worker.poll() for worker in workers):
                break
            time.sleep(0.2)
    finally:
        codes = [worker.poll() for worker in workers]
        for worker in workers:
            worker.kill()
            worker.wait()
    if codes != [0, 0]:
        said = "\n".join(log.read_text()[-3000:] for log in logs)
        pytest.fail(f"exit codes {codes} (None: was still running)\n{said}")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes found."""
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("processes")
    run_two_processes(folder, os.environ)
    ranks = [pickle.loads((folder / f"{rank}.pkl").read_bytes()) for rank in (0, 1)]
    return SimpleNamespace(ranks=ranks, folder=folder)


# -- one process -------------------------------------------------------------------------------


def test_pooled_moments_by_hand():
    # the groups {1, 3} and {8}: of 1, 3, 8 the mean is 4, the variance (9 + 1 + 16) / 3
    mean, variance = pooled_moments(
        torch.tensor([[2.0], [1.0]]), torch.tensor([[2.0], [8.0]]), torch.tensor([[1.0], [0.0]])
    )
    assert_allclose(mean, [4.0])
    assert_allclose(variance, [26 / 3], rtol=1e-6)


def test_alone_nothing_is_done():
    tensor = torch.ones(2, requires_grad=True)
    tensor.sum().backward()
    state = torch.get_rng_state()
    ALONE.average_gradients([tensor])
    ALONE.broadcast([tensor])
    ALONE.check_same({"a": 1})
    ALONE.check_together([tensor], "cpu")
    assert_array_equal(tensor.grad, [1, 1])
    assert ALONE.is_main and not Processes(1, 2).is_main
    assert ALONE.from_main("value") == "value" and ALONE.on_main(max, 1, 2) == 2
    assert ALONE.map_rows(lambda x: x, tensor) is tensor
    assert torch.equal(state, torch.get_rng_state())


def accelerate_as(monkeypatch, **settings):
    """Put a stand-in in the place of accelerate."""
    defaults = {
        "num_processes": 2,
        "process_index": 1,
        "distributed_type": SimpleNamespace(value="MULTI_CPU"),
        "mixed_precision": "no",
        "gradient_accumulation_steps": 1,
        "device": torch.device("cpu", 0),
    }
    asked = []

    def accelerator(cpu):
        asked.append(cpu)
        return SimpleNamespace(**{**defaults, **settings})

    monkeypatch.setitem(sys.modules, "accelerate", SimpleNamespace(Accelerator=accelerator))
    monkeypatch.setenv("WORLD_SIZE", "2")
    return asked


def test_joining(monkeypatch):
    asked = accelerate_as(monkeypatch)
    assert join_processes("auto", "cpu", "fp32") == (Processes(1, 2), "cpu")
    assert asked == [True]  # or accelerate would leave the processes alone
    assert join_processes(None, "cpu", "fp32") == (ALONE, "cpu")
    assert asked == [True]
    accelerate_as(monkeypatch, mixed_precision="bf16")
    assert join_processes("auto", "auto", "bf16")[0] == Processes(1, 2)
    accelerate_as(
        monkeypatch,
        distributed_type=SimpleNamespace(value="MULTI_GPU"),
        device=torch.device("cuda", 1),
    )
    assert join_processes("auto", "auto", "fp32") == (Processes(1, 2), "cuda:1")
    with pytest.raises(ValueError, match="device='cpu', but accelerate has given .* 'cuda:1'"):
        join_processes("auto", "cpu", "fp32")


def test_one_process_of_accelerate_is_alone(monkeypatch):
    accelerate_as(monkeypatch, num_processes=1, process_index=0)
    monkeypatch.delenv("WORLD_SIZE")
    assert join_processes("auto", "cpu", "fp32") == (ALONE, "cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_processes": 1}, "2 processes have been launched, but accelerate trains in 1"),
        ({"distributed_type": SimpleNamespace(value="DEEPSPEED")}, "set up for DEEPSPEED"),
        ({"distributed_type": SimpleNamespace(value="FSDP")}, "set up for FSDP"),
        ({"mixed_precision": "fp16"}, "mixed_precision='fp16', but precision='fp32'"),
        ({"mixed_precision": "bf16"}, "mixed_precision='bf16', but precision='fp32'"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps=2: set it to 1"),
    ],
)
def test_settings_of_accelerate_that_are_refused(monkeypatch, settings, message):
    accelerate_as(monkeypatch, **settings)
    with pytest.raises(ValueError, match=message):
        clone(script.FEATURES).set_params(accelerator="auto").fit(script.X, script.Y)


def test_without_accelerate(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    clf = CoRegClassifier(max_epochs=1, accelerator="auto")
    with pytest.raises(ImportError, match="pip install accelerate"):
        clf.fit(script.X, script.Y)
    clf.set_params(accelerator=None).fit(script.X, script.Y)


@pytest.mark.parametrize("value", [True, "gpu", SimpleNamespace(gather=None, reduce=None)])
def test_accelerator_of_another_kind(value):
    with pytest.raises(InvalidParameterError, match="The 'accelerator' parameter"):
        CoRegClassifier(accelerator=value).fit(script.X, script.Y)


def test_one_process_with_accelerate_changes_nothing():
    pytest.importorskip("accelerate")
    clf, X, y = script.FITS["features"]
    alone = clone(clf).fit(X, y)
    launched = pickle.loads(pickle.dumps(clone(clf).set_params(accelerator="auto").fit(X, y)))
    assert launched.accelerator == "auto" and launched.get_params()["accelerator"] == "auto"
    assert_array_equal(launched.predict_proba(X), alone.predict_proba(X))
    assert_array_equal(launched.label_distributions_, alone.label_distributions_)


# -- two processes: the parts ------------------------------------------------------------------


@two_ranks
def test_processes_are_found(found, rank):
    assert found.ranks[rank]["parts"]["processes"] == Processes(rank, 2)


def assert_rows_agree(rows, tolerance):
    for name, expected in rows["alone"].items():
        error = (rows["together"][name] - expected).abs().max()
        assert error <= tolerance * max(1, expected.abs().max()), name
    assert rows["generator untouched"] and rows["buffers are leaves"]


@two_ranks
@pytest.mark.parametrize("n", [1024, 7, 2])
def test_a_batch_in_two_parts(found, rank, n):
    """Outputs, gradients of a loss that compares rows, and running statistics."""
    rows = found.ranks[rank]["parts"]["rows"][n]
    gradients = {k: v for k, v in rows["alone"].items() if k.startswith("gradient")}
    assert len(gradients) == 6 and gradients["gradient of 1.weight"].abs().min() > 1e-3
    assert_rows_agree(rows, 1e-12)


@two_ranks
@pytest.mark.parametrize(("name", "tolerance"), [("evaluation", 1e-12), ("single precision", 1e-4)])
def test_a_batch_in_evaluation_and_in_single_precision(found, rank, name, tolerance):
    assert_rows_agree(found.ranks[rank]["parts"][name], tolerance)


def test_dropout_differs_between_the_parts(found):
    dropped = [rank["parts"]["dropout"] for rank in found.ranks]
    assert torch.equal(*dropped)
    assert not torch.equal(*dropped[0].split(32))
    assert_allclose((dropped[0] == 0).float().mean(), 0.5, atol=0.1)


@two_ranks
def test_what_the_main_process_says(found, rank):
    parts = found.ranks[rank]["parts"]
    assert parts["from main"] == {"rank": 0} and parts["on main"] == 0
    assert_array_equal(parts["broadcast"], [[0, 3], [1, 4], [2, 5]])
    main, other = (
        "OSError: disk full",
        "RuntimeError: the main process failed: OSError('disk full')",
    )
    assert parts["failure"] == (other if rank else main)
    assert parts["one row"] == (1, 2)  # fewer rows than processes


# -- two processes: fits -----------------------------------------------------------------------


def assert_same_outcome(a, b):
    assert_array_equal(a["proba"], b["proba"])
    assert_array_equal(a["labels"], b["labels"])
    assert a["weights"].keys() == b["weights"].keys()
    assert all(torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"])
    rows = [[{**row, "seconds": None} for row in x["history"]] for x in (a, b)]
    assert repr(rows[0]) == repr(rows[1])  # NaN is NaN


@pytest.mark.parametrize("name", script.FITS)
def test_two_processes_learn_what_one_does(found, name):
    clf, X, y = script.FITS[name]
    alone = script.outcome(clone(clf).fit(X, y), X)
    ours, theirs = (rank["fits"][name] for rank in found.ranks)
    assert_same_outcome(ours, theirs)
    assert_allclose(ours["proba"], alone["proba"], **TOLERANCE)
    assert_allclose(ours["labels"], alone["labels"], **TOLERANCE)
    for key, weights in alone["weights"].items():
        assert_allclose(ours["weights"][key], weights, err_msg=key, **TOLERANCE)
    for row, expected in zip(ours["history"], alone["history"], strict=True):
        assert row.keys() == expected.keys()
        assert row["gradient_samples"] == expected["gradient_samples"]
    # the tolerance tells one epoch more from one less
    shorter = script.outcome(clone(clf).set_params(max_epochs=3).fit(X, y), X)
    assert abs(shorter["proba"] - alone["proba"]).max() > 100 * TOLERANCE["atol"]


@two_ranks
@pytest.mark.parametrize("name", script.FITS)
def test_a_pickle_predicts_alone(found, rank, name):
    fit = found.ranks[rank]["fits"][name]
    clf = pickle.loads(fit["pickle"])
    assert_allclose(clf.predict_proba(script.FITS[name][1]), fit["proba"], rtol=1e-5)
    assert clf.net_.processes == ALONE
    assert all(network.processes == ALONE for network in clf.net_.networks_)


@two_ranks
def test_generator_is_left_alone(found, rank):
    assert found.ranks[rank]["generator untouched"]


@two_ranks
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("X", "the checksum of X is '.*' in process 1 and '.*' in process 0. Give every process"),
        ("rows", "the checksum of X is"),
        ("labels", "the checksum of the labels is"),
        ("eval_set", "the checksum of the eval_set is"),
        ("parameter", "the parameter 'max_epochs' is 5 in process 1 and 4 in process 0"),
        ("network", "the parameter 'module' is None in process 1 and 'mlp' in process 0"),
        ("state", r"state of the processes \[1\] is no longer that of process 0"),
    ],
)
def test_unlike_processes_are_refused_by_all(found, rank, name, message):
    error = found.ranks[rank]["refusals"][name]
    with pytest.raises((ValueError, RuntimeError), match=message):
        kind, _, text = error.partition(": ")
        raise {"ValueError": ValueError, "RuntimeError": RuntimeError}[kind](text)


@pytest.mark.parametrize("name", ["module", "no seed", "detector"])
def test_what_may_differ_is_made_the_same(found, name):
    assert_same_outcome(*(rank["unlike"][name] for rank in found.ranks))
    assert len(found.ranks[0]["unlike"][name]["history"]) == 4


def test_a_callback_of_the_main_process_stops_all(found):
    assert_same_outcome(*(rank["unlike"]["stopped"] for rank in found.ranks))
    assert len(found.ranks[0]["unlike"]["stopped"]["history"]) == 2


def test_only_the_main_process_prints_and_writes(found):
    main, other = (rank["resumed"] for rank in found.ranks)
    assert [line[:9] for line in main["printed"].splitlines()] == ["epoch 1/4", "epoch 2/4"]
    assert other["printed"] == ""
    assert main["saved"] == ([1, 2], [3, 4]) and other["saved"] == ([], [])
    assert len(main["files"]) == 1 and other["files"] == []
    assert not (found.folder / "states" / "of another host").exists()


def test_an_interrupted_training_goes_on(found):
    whole = found.ranks[0]["fits"]["features"]
    for rank in found.ranks:
        assert_same_outcome(rank["resumed"]["outcome"], whole)


def test_one_process_goes_on_where_two_were(found, monkeypatch):
    """The file is that of the same training, so nothing is left to do."""
    clf = clone(script.FEATURES).set_params(
        checkpoint_dir=found.folder / "states", callbacks=[script.At(1, script.interrupt)]
    )
    clf.fit(script.X, script.Y)  # its callback would end it after the first epoch
    whole = found.ranks[0]["fits"]["features"]
    assert len(clf.history_) == 4
    assert_allclose(clf.predict_proba(script.X), whole["proba"], rtol=1e-5)
    assert np.isfinite(clf.label_distributions_).all()


@two_ranks
def test_a_device_that_does_not_exist(found, rank):
    assert "device='meta' cannot be used" in found.ranks[rank]["wrong device"]
