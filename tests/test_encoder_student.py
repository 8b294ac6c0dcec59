"""A student that starts from the image encoder of the shipped model."""

import pickle

import numpy as np
import pytest
import torch
from fakes import OLD_TORCH
from sklearn.base import clone

from sklearn_npll import CoRegClassifier, VLMPartialAnnotator
from sklearn_npll.annotators import ImageEncoderStudent
from sklearn_npll.baselines import PRODENClassifier
from sklearn_npll.datasets import load_fashion_mnist
from sklearn_npll.hub import save_pretrained

CLOTHES = ["Dress", "Sandal", "Bag"]


@pytest.fixture(scope="module")
def labels():
    data = load_fashion_mnist("test")
    rows = np.isin(data.target_names[data.target], CLOTHES).nonzero()[0][:24]
    return VLMPartialAnnotator(CLOTHES, templates="simple").fit_transform(data.images[rows])


def test_student_starts_with_the_embeddings_of_the_annotator(labels):
    student = ImageEncoderStudent()(3).eval()
    pixels = torch.from_numpy(labels.data[:8]).float().div(255)[:, None]
    inputs = []
    student.classifier.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with torch.inference_mode():
        student(pixels)
    embeddings = inputs[0].numpy()
    np.testing.assert_allclose((embeddings**2).sum(axis=1), 64, rtol=1e-4)
    expected = VLMPartialAnnotator(CLOTHES).fit(labels.data).embed(labels.data[:8])
    # images are resized bilinearly, the annotator's bicubically
    assert ((embeddings / 8 * expected).sum(axis=1) > 0.98).all()


def test_all_weights_are_trained_and_the_shared_encoder_is_not(labels):
    before = ImageEncoderStudent()(3).state_dict()
    params = {"max_epochs": 2, "warm_up": 1, "lr": 0.01, "batch_size": 8, "random_state": 0}
    clf = CoRegClassifier(module=ImageEncoderStudent(), **params).fit(labels)
    network = clf.net_.module_.networks[0]
    assert network.mean.eq(0).all() and network.scale.eq(1).all()
    trained = {name: p for name, p in network.backbone.named_parameters()}
    assert trained and all(not p.equal(before[name]) for name, p in trained.items())
    after = ImageEncoderStudent()(3).state_dict()
    assert all(after[name].equal(before[name]) for name in trained)

    again = pickle.loads(pickle.dumps(clf))
    proba = clf.predict_proba(labels.data)
    np.testing.assert_array_equal(again.predict_proba(labels.data), proba)
    same = clone(clf).fit(labels)
    np.testing.assert_array_equal(same.predict_proba(labels.data), proba)


@pytest.mark.skipif(OLD_TORCH, reason="PyTorch before 2.5 cannot export antialiased resizing")
def test_student_is_exported(labels, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    clf = PRODENClassifier(module=ImageEncoderStudent("fashion-clip-tiny"), max_epochs=1)
    clf.fit(labels)
    path = tmp_path / "student.onnx"
    clf.export_onnx(path)
    session = runtime.InferenceSession(path)
    pixels = (labels.data[:5, None] / 255).astype(np.float32)
    (proba,) = session.run(None, {session.get_inputs()[0].name: pixels})
    np.testing.assert_allclose(proba, clf.predict_proba(labels.data[:5]), atol=1e-4)
    with pytest.raises(TypeError, match="a module of your own"):
        save_pretrained(clf, tmp_path / "folder")


def test_raw_inputs_are_not_standardised():
    class Raw(torch.nn.Module):
        raw_inputs = True

        def __init__(self, n_features, n_classes):
            super().__init__()
            self.seen = []
            self.linear = torch.nn.Linear(n_features, n_classes)

        def forward(self, x):
            self.seen.append(x.detach())
            return self.linear(x)

    X = np.array([[100.0, 3.0], [100.0, 5.0], [300.0, 3.0], [300.0, 5.0]])
    clf = PRODENClassifier(module=Raw, max_epochs=1).fit(X, [0, 0, 1, 1])
    clf.predict(X)
    seen = clf.net_.module_.networks[0].backbone.seen[-1]
    np.testing.assert_array_equal(seen.numpy(), X)


@pytest.mark.parametrize(
    "student, message",
    [
        (ImageEncoderStudent("fashion-clip-tinny"), "fashion-clip-tiny"),
        (ImageEncoderStudent("ViT-B-32"), "pretrained"),
    ],
)
def test_unknown_models_are_named(labels, student, message):
    with pytest.raises(ValueError, match=message):
        PRODENClassifier(module=student).fit(labels)


def test_what_is_no_name_of_a_model():
    with pytest.raises(TypeError, match=r"model is 3, .* number of classes is given by the cl"):
        ImageEncoderStudent(3)
    with pytest.raises(TypeError, match="pretrained is 3, but must be the name of weights"):
        ImageEncoderStudent(pretrained=3)


def test_features_are_refused():
    with pytest.raises(ValueError, match="network for images, but X has 4 features"):
        PRODENClassifier(module=ImageEncoderStudent()).fit(np.eye(4), [0, 0, 1, 1])


def test_the_class_in_place_of_an_instance_is_named(labels):
    with pytest.raises(TypeError, match=r"pass module=ImageEncoderStudent\(\) instead"):
        PRODENClassifier(module=ImageEncoderStudent).fit(labels)


def test_a_function_that_returns_no_network_is_named(labels):
    with pytest.raises(TypeError, match="returned an object of type list, not an nn.Module"):
        PRODENClassifier(module=lambda n_classes: [n_classes]).fit(labels)
