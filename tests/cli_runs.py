"""The command line run on a folder of photos, which it has annotated and learned."""

import shutil

import pytest
from PIL import Image

from sklearn_npll.cli import main
from sklearn_npll.coreg._net import CoRegNet
from sklearn_npll.datasets import load_fashion_mnist

IMAGES = load_fashion_mnist("test").images[:30]
CLASSES = """\
# what to tell apart
pullover: pullover, sweater

bag
sneaker
ankle boot: ankle boot
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images with awkward names, and one file that is no image."""
    folder = tmp_path_factory.mktemp("my photos")
    (folder / "été 2024").mkdir()
    (folder / "notes.txt").write_text("no image")
    names = ["a, b.png", 'say "hi".png', "été 2024/naïve 写真.png"]
    names += [f"{i:02d}.png" for i in range(3, len(IMAGES))]
    for name, image in zip(names, IMAGES):
        Image.fromarray(image).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    file = tmp_path_factory.mktemp("classes") / "names.txt"
    file.write_text(CLASSES)
    return file


@pytest.fixture(scope="module")
def annotated(photos, classes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "labels of mine"
    assert run("annotate", photos, "--classes", classes, "--output", folder, "--quiet") == 0
    return folder


def copy_labels(annotated, folder):
    """Copy what annotate has written, but for its cache, and return the folder of the copy."""
    folder.mkdir(exist_ok=True)
    for name in ("labels.npz", "annotation.json"):
        shutil.copy(annotated / name, folder)
    return folder


def interrupt_second_epoch(patch):
    """Let Co-Reg be interrupted in the second epoch that it trains from now on."""
    train_epoch, n_epochs = CoRegNet.train_epoch, []

    def interrupted(*args):
        n_epochs.append(1)
        if len(n_epochs) == 2:
            raise KeyboardInterrupt
        return train_epoch(*args)

    patch.setattr(CoRegNet, "train_epoch", interrupted)


def run(*args):
    return main([str(arg) for arg in args])


def error_of(capsys, *args):
    """The one line that a command ends with."""
    assert run(*args) == 1
    *warned, line = capsys.readouterr().err.splitlines()
    assert all(text.startswith("sklearn-npll: warning: ") for text in warned)
    assert line.startswith("sklearn-npll: error: ")
    return line


def wrong_use(capsys, *args):
    """The last line of a command that was used wrongly."""
    with pytest.raises(SystemExit) as ended:
        run(*args)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]
