"""Training time of the package against that of an ordinary PyTorch program of the same method.

The program below is written the way that research code is: images become PIL images that
torchvision's transforms turn into views one by one, in a Dataset; two DataLoaders give the rows of
the two splits; targets, losses of rows and prototypes are filled row by row. It implements the
equations of docs/method.rst as ``variant="paper"`` does, with the same networks, optimiser, batch
size and epochs, so that both make as many steps as their splits allow. The package is run with
that variant, with the same in bfloat16, and with its default, whose epochs have the same networks
but far fewer passes, for as many epochs, twice and three times as many. Times are of the processor:
of an epoch after the warm-up (median), and of the whole fit.
``OMP_NUM_THREADS=1`` makes them those of one core, on which workers of a DataLoader gain nothing.

Half of the epochs are warm-up, as the paper has it for 100 epochs. On as few steps as here a short
warm-up leaves networks whose first divisions are near chance, and what follows is chaotic.

Grey images are those of Fashion-MNIST, colour images those of CIFAR-10, whose strong views have one
random operation of TrivialAugment in the program and one of the package's own in the package.

Usage::

    python benchmarks/bench_ordinary.py [--rows 1000] [--epochs 40] [--seeds 0 1 2]
        [--kinds grey colour] [--layouts contiguous channels_last]
"""

import argparse
import time
from collections import deque
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from npllbench.loaders import cifar10_split, decode_images
from PIL import Image
from reporting import mean_and_std, write_result
from sklearn.mixture import GaussianMixture
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms

from sklearn_npll import CoRegClassifier
from sklearn_npll._neural._networks import build_network
from sklearn_npll.datasets import load_fashion_mnist, make_candidates

N_CLASSES, DIM, WINDOW, RAMP = 10, 128, 5, 16
SETTING = {"batch_size": 64, "lr": 0.05, "contrastive_start": 0}
# Parameters, and how many times the epochs of the program.
PACKAGE = {
    "paper": ({"variant": "paper"}, 1),
    "paper, bfloat16": ({"variant": "paper", "precision": "bf16"}, 1),
    "default": ({}, 1),
    "default, twice the epochs": ({}, 2),
    "default, three times the epochs": ({}, 3),
}


class Cutout:
    """Sets a square around a random pixel of an image tensor to zero."""

    def __init__(self, size):
        self.size = size

    def __call__(self, image):
        _, height, width = image.shape
        y, x = (torch.randint(length, ()).item() for length in (height, width))
        top, left = (max(0, v - self.size // 2) for v in (y, x))
        image[:, top : y + self.size - self.size // 2, left : x + self.size - self.size // 2] = 0
        return image


class Views(Dataset):
    """Rows of images with their candidates, each in as many views as there are transforms."""

    def __init__(self, images, candidates, views):
        self.images, self.candidates, self.views = images, candidates, views

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = Image.fromarray(self.images[i])
        return [view(image) for view in self.views], self.candidates[i], i


class Network(nn.Module):
    """Backbone, classifier and projection head."""

    def __init__(self, module, shape, mean, std, channels_last):
        super().__init__()
        self.backbone = build_network(module, shape, N_CLASSES)
        self.classifier, self.backbone.classifier = self.backbone.classifier, nn.Identity()
        width = self.classifier.in_features
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, DIM))
        self.mean, self.std = mean, std
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.format)

    def embed(self, x):
        return self.backbone(((x - self.mean) / self.std).contiguous(memory_format=self.format))

    def forward(self, x):
        return self.classifier(self.embed(x))

    def project(self, embedding):
        return F.normalize(self.head(embedding), dim=1)


class Program:
    """The ordinary program.

    Parameters
    ----------
    images : uint8 ndarray of shape (n, H, W) or (n, H, W, 3)
    candidates : bool ndarray of shape (n, C)
    module : str
        Name of the networks.
    epochs, warm_up, seed : int
    channels_last : bool
        Whether the networks run in the memory format that the package runs them in.
    """

    def __init__(self, images, candidates, module, epochs, warm_up, seed, channels_last):
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        size, n = images.shape[1], len(images)
        weak = [transforms.RandomCrop(size, -(-size // 8)), transforms.RandomHorizontalFlip()]
        to_tensor = transforms.ToTensor()
        self.weak = transforms.Compose([*weak, to_tensor])
        operations = [transforms.TrivialAugmentWide()] if images.ndim == 4 else []
        self.strong = transforms.Compose([*weak, *operations, to_tensor, Cutout(size // 2)])
        self.plain = to_tensor
        self.images, self.candidates = images, torch.from_numpy(candidates).float()
        self.epochs, self.warm_up_epochs, self.seed = epochs, warm_up, seed
        pixels = images.reshape(-1, 3 if images.ndim == 4 else 1)
        mean, std = (
            torch.tensor(v / 255, dtype=torch.float32).view(-1, 1, 1)
            for v in (pixels.mean(0), pixels.std(0))
        )
        args = module, (len(mean), size, size), mean, std, channels_last
        self.networks = [Network(*args) for _ in range(2)]
        self.keys = [Network(*args) for _ in range(2)]
        for key in self.keys:
            key.requires_grad_(False)
        self.optimizers = [
            torch.optim.SGD(net.parameters(), SETTING["lr"], momentum=0.9, weight_decay=5e-4)
            for net in self.networks
        ]
        self.prototypes = torch.zeros(N_CLASSES, DIM)
        self.queues = [deque(maxlen=n) for _ in range(2)]
        self.losses = [deque(maxlen=WINDOW) for _ in range(2)]
        self.means = [deque(maxlen=WINDOW) for _ in range(2)]

    def fit(self):
        """Train, and return the seconds and the rows with gradients of each epoch."""
        rows = []
        for epoch in range(self.epochs):
            progress = (1 + np.cos(np.pi * epoch / self.epochs)) / 2
            for optimizer in self.optimizers:
                optimizer.param_groups[0]["lr"] = SETTING["lr"] * (1e-3 + (1 - 1e-3) * progress)
            start, self.n_rows, self.n_steps = time.process_time(), 0, 0
            if epoch < self.warm_up_epochs:
                for k in range(2):
                    self.warm_up(k)
            else:
                if epoch == self.warm_up_epochs:
                    for key, network in zip(self.keys, self.networks):
                        key.load_state_dict(network.state_dict())
                divisions = [self.divide(k) for k in range(2)]
                for k in range(2):
                    self.train(k, *divisions[1 - k], epoch - self.warm_up_epochs)
            rows.append((time.process_time() - start, self.n_rows, self.n_steps))
        return rows

    def step(self, k, loss):
        self.optimizers[k].zero_grad()
        loss.backward()
        self.optimizers[k].step()
        self.n_steps += 1

    def loader(self, views, indices, shuffle, batch_size):
        data = Subset(Views(self.images, self.candidates, views), indices)
        return DataLoader(data, batch_size, shuffle=shuffle)

    def warm_up(self, k):
        """Eq. 1 to 3."""
        self.networks[k].train()
        everything = range(len(self.images))
        for (view,), candidates, _ in self.loader(
            [self.strong], everything, True, 2 * SETTING["batch_size"]
        ):
            log_proba = self.networks[k](view).log_softmax(1)
            proba = log_proba.exp()
            loss = -(proba * candidates).sum(1).log().mean() + (proba * log_proba).sum(1).mean()
            self.n_rows += len(view)
            self.step(k, loss)

    def divide(self, k):
        """Eq. 4 and 5, on predictions that are aligned to equal class shares."""
        network, n = self.networks[k].eval(), len(self.images)
        proba = torch.zeros(n, N_CLASSES)
        with torch.no_grad():
            for (view,), _, index in self.loader([self.weak], range(n), False, 256):
                output = network(view).softmax(1)
                for b in range(len(index)):
                    proba[index[b]] = output[b]
        self.means[k].append(proba.mean(0))
        proba = proba / N_CLASSES / torch.stack(list(self.means[k])).mean(0)
        loss, rescaled = torch.zeros(n), torch.zeros(n, N_CLASSES)
        for i in range(n):
            proba[i] = proba[i] / proba[i].sum()
            kept = proba[i] * self.candidates[i]
            loss[i] = -kept.max().clamp(min=1e-8).log()
            rescaled[i] = kept / kept.sum().clamp(min=1e-8)
        self.losses[k].append((loss - loss.min()) / (loss.max() - loss.min()))
        values = torch.stack(list(self.losses[k])).mean(0).numpy()[:, None]
        mixture = GaussianMixture(
            2, max_iter=50, tol=1e-3, reg_covar=5e-4, random_state=self.seed
        ).fit(values)
        clean = mixture.predict_proba(values)[:, mixture.means_.argmin()]
        return torch.from_numpy(clean).float(), rescaled

    def train(self, k, clean, rescaled, elapsed):
        """Eq. 6 to 11."""
        network, peer = self.networks[k].train(), self.networks[1 - k].eval()
        key_network = self.keys[k]
        views = [self.weak, self.weak, self.strong, self.strong]
        partial = np.flatnonzero(clean.numpy() > 0.5)
        rest = np.flatnonzero(clean.numpy() <= 0.5)
        labelled = self.loader(views, partial, True, SETTING["batch_size"])
        unlabelled = self.loader(views, rest, True, SETTING["batch_size"])
        more = iter(unlabelled)
        for step, (views_p, _, index) in enumerate(labelled):
            try:
                views_u, _, index_u = next(more)
            except StopIteration:
                more = iter(unlabelled)
                views_u, _, index_u = next(more)
            n_p, n_u = len(index), len(index_u)
            with torch.no_grad():
                embedding_p = [network.embed(v) for v in views_p[:2]]
                own_p = sum(network.classifier(e).softmax(1) for e in embedding_p) / 2
                own_u = sum(network(v).softmax(1) for v in views_u[:2]) / 2
                peer_u = sum(peer(v).softmax(1) for v in views_u[:2]) / 2
                projection = network.project(embedding_p[0])
            target = torch.zeros(n_p + n_u, N_CLASSES)
            for b in range(n_p):  # Eq. 6
                w = clean[index[b]]
                target[b] = w * rescaled[index[b]] + (1 - w) * own_p[b]
            for b in range(n_u):
                target[n_p + b] = (own_u[b] + peer_u[b]) / 2
            target = target**2 / (target**2).sum(1, keepdim=True)  # Eq. 7, temperature 0.5
            label = target.argmax(1)

            inputs = torch.cat([*views_p[2:], *views_u[2:]])
            targets = torch.cat([target[:n_p], target[:n_p], target[n_p:], target[n_p:]])
            share = self.rng.beta(4, 4)
            share = max(share, 1 - share)
            order = torch.randperm(len(inputs))
            other = targets[order]
            mixed = share * targets + (1 - share) * other
            embedding = network.embed(share * inputs + (1 - share) * inputs[order])
            logits = network.classifier(embedding)
            ramp = min((elapsed + step / len(labelled)) / RAMP, 1)
            loss = -(mixed[: 2 * n_p] * logits[: 2 * n_p].log_softmax(1)).sum(1).mean()  # Eq. 8
            loss = loss + ramp * F.mse_loss(logits[2 * n_p :].softmax(1), mixed[2 * n_p :])

            for b in range(n_p):  # Eq. 9
                c = label[b]
                self.prototypes[c] = 0.999 * self.prototypes[c] + 0.001 * projection[b]
            self.prototypes = F.normalize(self.prototypes, dim=1)
            similarity = network.project(embedding) @ self.prototypes.T / 0.3
            for weight, goal in ((share, targets), (1 - share, other)):  # Eq. 10
                divergence = F.kl_div(
                    similarity[: 2 * n_p].log_softmax(1), goal[: 2 * n_p], reduction="batchmean"
                )
                error = F.mse_loss(similarity[2 * n_p :].softmax(1), goal[2 * n_p :])
                loss = loss + 0.1 * weight * (divergence + error)

            query = network.project(network.embed(torch.cat([views_p[2], views_u[2]])))
            with torch.no_grad():
                strong = torch.cat([views_p[3], views_u[3]])
                key = key_network.project(key_network.embed(strong))
            loss = loss + 0.1 * self.contrast(k, query, key, label, n_p)
            self.n_rows += len(inputs) + len(query)
            self.step(k, loss)
            for old, new in zip(key_network.parameters(), network.parameters()):
                old.data = 0.999 * old.data + 0.001 * new.data

    def contrast(self, k, query, key, label, n_partial):
        """Eq. 11."""
        in_partial = [b < n_partial for b in range(len(query))]
        queue = self.queues[k]
        batch = list(zip(key, label, in_partial))
        entries = batch + list(queue)
        keys = torch.stack([entry[0] for entry in entries])
        labels = torch.stack([entry[1] for entry in entries])
        partial = torch.tensor([entry[2] for entry in entries])
        similarity = query @ keys.T / 0.07
        loss = 0.0
        for b in range(len(query)):
            same = labels == label[b]
            positive = same & partial & in_partial[b]
            counted = ~same | positive
            positive[b] = counted[b] = True
            loss = loss - (similarity[b][positive] - similarity[b][counted].logsumexp(0)).mean()
        queue.extendleft(batch)
        return loss / len(query)

    def score(self, images, y):
        """Accuracy of both networks together."""
        data = Views(images, np.zeros(len(images)), [self.plain])
        hits = 0
        with torch.no_grad():
            for (view,), _, index in DataLoader(data, 256):
                logits = sum(network.eval()(view) for network in self.networks)
                hits += (logits.argmax(1).numpy() == y[index.numpy()]).sum()
        return hits / len(images)


class Clock(Callback):
    """Seconds of the processor, rows with gradients and steps of each epoch."""

    rows = []  # of the class: the classifier works on a copy of the callback

    def on_epoch_begin(self, net, **kwargs):
        self.start, self.n_steps = time.process_time(), 0

    def on_batch_end(self, net, **kwargs):
        self.n_steps += 1

    def on_epoch_end(self, net, **kwargs):
        seconds = time.process_time() - self.start
        self.rows.append((seconds, net.history[-1]["gradient_samples"], self.n_steps))


def figures(rows, warm_up, accuracy):
    """Summarise the whole fit and the epochs after the warm-up."""
    fit_seconds = sum(row[0] for row in rows)
    seconds, samples, steps = np.array(rows)[warm_up:].T
    return {
        "accuracy": float(accuracy),
        "fit_seconds": fit_seconds,
        "epoch_seconds": seconds.tolist(),
        "gradient_samples": samples.astype(int).tolist(),
        "steps": steps.astype(int).tolist(),
    }


def load_images(kind, n_rows, seed):
    """Return images and labels to train on, and others to test on."""
    if kind == "grey":
        train, test = load_fashion_mnist("train"), load_fashion_mnist("test")
        rows = np.random.default_rng(seed).permutation(len(train.images))[:n_rows]
        return train.images[rows], train.target[rows], test.images, test.target
    train, test = cifar10_split("train"), cifar10_split("test")
    rows = np.random.default_rng(seed).permutation(len(train["label"]))[:n_rows]
    images = decode_images(train, rows), decode_images(test, range(len(test["label"])))
    return images[0], train["label"][rows].astype(int), images[1], test["label"].astype(int)


def compare(seed, kind, layout, n_rows, epochs):
    """Train the package and the ordinary program, on the same rows and candidates.

    In the layout "channels_last" the program has the memory format of the package.
    """
    X, y, X_test, y_test = load_images(kind, n_rows, seed)
    candidates = make_candidates(y, q=0.1, eta=0.2, random_state=seed)
    warm_up = epochs // 2
    program = Program(X, candidates, "auto", epochs, warm_up, seed, layout == "channels_last")
    theirs = figures(program.fit(), warm_up, program.score(X_test, y_test))
    run = {"kind": kind, "seed": seed, "layout": layout, "program": theirs, "package": {}}
    for name, (params, times) in PACKAGE.items():
        Clock.rows.clear()
        clf = CoRegClassifier(
            max_epochs=times * epochs,
            warm_up=times * warm_up,
            random_state=seed,
            callbacks=[Clock()],
            **SETTING,
            **params,
        ).fit(X, candidates)
        ours = figures(Clock.rows, times * warm_up, clf.score(X_test, y_test))
        epoch, rows = (
            [np.array(f[key]) for f in (theirs, ours)]
            for key in ("epoch_seconds", "gradient_samples")
        )
        per_row = [e.sum() / r.sum() for e, r in zip(epoch, rows)]
        run["package"][name] = {
            "epoch_ratio": float(np.median(epoch[0]) / np.median(epoch[1])),
            "fit_ratio": theirs["fit_seconds"] / ours["fit_seconds"],
            "ratio_at_equal_rows": float(per_row[0] / per_row[1]),
            **ours,
        }
    return run


def summary(runs):
    """Return the accuracies (%) and the ratios of the times, for each kind of images."""
    accuracies, ratios = [], {}
    for run in runs:
        task = f"{run['kind']}, {run['layout']}"
        for name, result in {"program": run["program"], **run["package"]}.items():
            accuracies.append({"task": task, "option": name, "accuracy": result["accuracy"]})
        for name, result in run["package"].items():
            cell = ratios.setdefault(task, {}).setdefault(name, {})
            for key in ("epoch_ratio", "fit_ratio", "ratio_at_equal_rows"):
                cell.setdefault(key, []).append(round(result[key], 2))
    return {"accuracy": mean_and_std(accuracies), "ratios": ratios}


def main():
    """Compare, and write the result after each run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", default=["grey", "colour"])
    parser.add_argument("--layouts", nargs="+", default=["contiguous"])
    parser.add_argument("--output")
    args = parser.parse_args()
    runs = []
    for task in product(args.seeds, args.kinds, args.layouts):
        runs.append(compare(*task, args.rows, args.epochs))
        result = {"wanted": 3.0, "rows": args.rows, "summary": summary(runs), "runs": runs}
        write_result("ordinary", result, args.output)


if __name__ == "__main__":
    main()
