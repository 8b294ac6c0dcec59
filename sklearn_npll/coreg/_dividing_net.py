"""What the networks of Co-Reg say of the training rows: predictions, division, purified labels."""

import functools
from collections import deque

import numpy as np
import torch
from torch.nn.functional import normalize

from .._neural._contrastive import ContrastiveNet
from .._neural._sparse_rows import (
    SparseRows,
    collect_rows,
    largest_or_candidates,
    map_rows,
    mean_predictions,
    reduce_rows,
    row_blocks,
)
from ._division import (
    Division,
    align_distribution,
    clean_probability,
    clean_probability_by_class,
    division_loss,
    min_max_scale,
    rescale_candidates,
    weigh_by_evidence,
)
from ._memory import OptionMemory
from ._neighbours import neighbour_graph, smooth
from ._options import balanced_labels

# Most probable classes of a row whose predictions are kept besides its candidates', where there
# are too many rows and classes to keep all.
KEPT_CLASSES = 20


class DividingNet(ContrastiveNet):
    """Divides the training rows with its networks, and remembers what it found."""

    def initialize(self):
        """Make the module, the optimiser and an empty memory of the rows."""
        super().initialize()
        window = self.method.loss_window
        self.losses_ = [deque(maxlen=window), deque(maxlen=window)]
        self.mean_proba_ = [deque(maxlen=window), deque(maxlen=window)]
        self.labels_ = None
        self.clean_ = None
        self.memory_ = [OptionMemory(self.method), OptionMemory(self.method)]
        self.hard_labels_ = [None, None]
        self.n_averaged_ = 0
        return self

    @property
    def is_averaging_(self):
        """Whether network 1 is the average of network 2."""
        return self.method.co_labelling == "average"

    @property
    def trained_(self):
        """Indices of the networks that are trained."""
        return (1,) if self.is_averaging_ else (0, 1)

    @property
    def dividing_(self):
        """Indices of the networks that divide the data."""
        return (0,) if self.is_averaging_ else (0, 1)

    @property
    def n_divided_(self):
        """Number of epochs after the warm-up, the current one included."""
        return sum(row.get("phase") == "co_regularisation" for row in self.history)

    # -- division ------------------------------------------------------------------------------

    def _predict_aligned(self, k, data, view):
        """Predict the training rows with network k and align the predictions, step 3a."""
        if data.is_sparse:
            return self._predict_sparsely(k, data, view)
        proba = self._predict_smoothly(k, view, len(data))
        prior = data.prior
        if prior is None:
            return proba
        self.mean_proba_[k].append(proba.mean(0))
        if isinstance(prior, str):
            prior = rescale_candidates(proba, data.candidates).mean(0)
        mean = torch.stack(list(self.mean_proba_[k])).mean(0)
        return align_distribution(proba, mean, prior, self.method.alignment_rounds)

    def _predict_smoothly(self, k, view, n):
        """Predict rows with network k, and mix in what it predicts of their neighbours."""
        weight = self.method.neighbor_weight
        if not weight:
            return self.predict_views(k, view, n)
        found = []
        hook = self.networks_[k].classifier.register_forward_pre_hook(
            lambda _, inputs: found.append(normalize(inputs[0].float(), dim=1).cpu())
        )
        try:
            proba = self.predict_views(k, view, n)
        finally:
            hook.remove()
        embeddings = torch.cat(found).numpy()
        graph = self.processes.on_main(neighbour_graph, embeddings, self.method.neighbors)
        return smooth(proba, graph, weight)

    def _predict_sparsely(self, k, data, view):
        """Predict and align as `_predict_aligned` does, and keep what the later steps need.

        The alignment needs the mean prediction first, so that rows are predicted twice, on the same
        views, rather than kept.
        """
        predict = functools.partial(self.predict_blocks, k, view, len(data))
        prior, mean = data.prior, None
        if prior is not None:
            rescale = rescale_candidates if isinstance(prior, str) else None
            device = torch.device(self.device)
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                mean, estimated = mean_predictions(predict(), data.candidates, rescale)
            self.mean_proba_[k].append(mean)
            mean = torch.stack(list(self.mean_proba_[k])).mean(0)
            prior = prior if rescale is None else estimated

        def blocks():
            for rows, proba in predict():
                aligned = proba if prior is None else align_distribution(proba, mean, prior)
                candidates = data.candidates[rows]
                yield aligned, largest_or_candidates(aligned, candidates, KEPT_CLASSES)

        candidates = data.candidates
        n_entries = len(candidates.columns) + len(data) * KEPT_CLASSES
        return SparseRows.from_blocks(blocks(), candidates.shape, n_entries, self.device)

    def divide(self, k, data):
        """Divide the data with network k, steps 3a to 3c.

        Parameters
        ----------
        k : {0, 1}
        data : TrainingData

        Returns
        -------
        Division
        """
        method = self.method
        proba = self._predict_aligned(k, data, data.views.weak)
        candidates = self.memory_[k].candidates(data)
        clean, means = self._clean_probability(k, data, proba)
        rescaled = self._rescale(data, proba, candidates)
        if method.candidate_update is not None:
            self.memory_[k].update_candidates(data, proba, clean <= method.clean_threshold)
        if method.confidence_weight:
            prior = rescaled.mean(0) if isinstance(data.prior, str) else data.prior
            self.hard_labels_[k] = balanced_labels(proba, prior)
        return Division(proba, rescaled, clean, means)

    def _rescale(self, data, proba, candidates):
        """Candidate-restricted predictions (n, C), step 3c, by the annotator's evidence too."""
        if data.evidence is None:
            return map_rows(rescale_candidates, proba, candidates)
        joint = map_rows(weigh_by_evidence, proba, data.evidence)
        return map_rows(rescale_candidates, joint, candidates)

    def _clean_probability(self, k, data, proba):
        """Clean probabilities (n,), step 3b, and the means of the mixture they come from."""
        unlabelled = data.candidates.all(1)
        clean = torch.where(unlabelled, 0.0, 1.0)
        judged = ~(unlabelled | data.known)
        if data.clean is not None:  # a detector has judged the rows before
            clean[judged] = data.clean[judged]
            return clean, np.full(2, np.nan)
        candidates = self.memory_[k].candidates(data)
        loss = reduce_rows(division_loss, proba, candidates)
        if judged.any():
            loss[judged] = min_max_scale(loss[judged])
        self.losses_[k].append(loss)
        mean_loss = torch.stack(list(self.losses_[k])).mean(0)
        judged_loss = mean_loss[judged].double().cpu().numpy()
        if self.method.division == "class":
            best = reduce_rows(lambda p, c: (p * c).argmax(1), proba, candidates)
            judge = functools.partial(clean_probability_by_class, label=best[judged].cpu().numpy())
        else:
            judge = clean_probability
        posterior, means = self.processes.on_main(judge, judged_loss, self.seed + self.epoch_)
        clean[judged] = torch.from_numpy(posterior).to(clean.device)
        return clean, means

    # -- records -------------------------------------------------------------------------------

    def final_labels(self, data):
        """Return the label distributions after the last epoch, and the clean probabilities.

        The clean probabilities are those of the last division; the predictions are made anew, on
        the samples as they are.
        """
        if self.clean_ is None:  # the training ended in the warm-up
            torch.manual_seed(self.seed + len(self.history))
            self.clean_ = [self.divide(k, data).clean for k in self.dividing_]
        divisions = []
        for k in self.dividing_:
            proba = self._predict_aligned(k, data, data.views.plain)
            rescaled = self._rescale(data, proba, self.memory_[k].candidates(data))
            divisions.append(Division(proba, rescaled, self.clean_[k], None))
        return {
            "label_distributions_": self._label_distributions(divisions),
            "clean_probability_": torch.stack(self.clean_).mean(0),
        }

    def forget_training(self):
        """Drop what only the training needs."""
        super().forget_training()
        self.losses_ = self.mean_proba_ = self.labels_ = self.clean_ = None
        self.memory_ = self.hard_labels_ = None

    def purify(self, divisions, rows=slice(None)):
        """Return the purified label distributions (m, C) of rows: the mean over the divisions."""
        threshold = self.method.clean_threshold
        return sum(division.purified(threshold, rows) for division in divisions) / len(divisions)

    def _label_distributions(self, divisions):
        """Return the purified labels of all rows; as a csr_array of sum 1 if not all are kept."""
        proba = divisions[0].proba
        if torch.is_tensor(proba):
            return self.purify(divisions)

        def blocks():
            for rows in row_blocks(proba):
                labels = self.purify(divisions, rows)
                labels /= labels.sum(1, keepdim=True)
                yield labels, labels > 0

        n_entries = sum(len(division.proba.columns) for division in divisions)
        return SparseRows.from_blocks(blocks(), proba.shape, n_entries, proba.device).to_scipy()

    def _assess(self, data, divisions, rows):
        """Return labels, whether predictions are candidates and their confidence there, (m,)."""
        proba = sum(division.proba[rows] for division in divisions) / len(divisions)
        candidates = data.candidates[rows]
        predicted = proba.argmax(1, keepdim=True)
        matrices = (candidates, rescale_candidates(proba, candidates))
        inside, best = (matrix.gather(1, predicted)[:, 0] for matrix in matrices)
        return self.purify(divisions, rows).argmax(1), inside, best

    def _record_division(self, data, divisions):
        """Record what the division found, averaged over the two networks."""
        assess = functools.partial(self._assess, data, divisions)
        labels, inside, best = collect_rows(assess, divisions[0].proba)
        changed = None
        if self.labels_ is not None:
            changed = (labels != self.labels_).float().mean().item()
        self.labels_ = labels
        clean = torch.stack(self.clean_)
        in_partial = clean > self.method.clean_threshold
        size = in_partial.sum().item() / len(clean)
        labelled = ~data.candidates.all(1)
        row = {
            "partial_size": size,
            "partial_share": size / len(data),
            "partial_clean_probability": clean[in_partial].mean().item() if size else None,
            "mixture_means": np.mean([d.means for d in divisions], 0).tolist(),
            "label_change_rate": changed,
            "covering_rate": inside[labelled].float().mean().item(),
            "approximated_accuracy": best[labelled].mean().item(),
        }
        for name, value in row.items():
            self.history.record(name, value)

    # -- interruption --------------------------------------------------------------------------

    def method_state(self):
        """Return what the next epoch depends on besides weights, optimiser and history."""
        return {
            **super().method_state(),
            "losses": [list(q) for q in self.losses_],
            "mean_proba": [list(q) for q in self.mean_proba_],
            "labels": self.labels_,
            "clean": self.clean_,
            "memory": [memory.state for memory in self.memory_],
            "n_averaged": self.n_averaged_,
        }

    def load_method_state(self, state, data):
        """Restore what `method_state` returned."""
        super().load_method_state(state, data)
        for queues, values in (
            (self.losses_, state["losses"]),
            (self.mean_proba_, state["mean_proba"]),
        ):
            for queue, value in zip(queues, values, strict=True):
                queue.extend(value)
        self.labels_, self.clean_ = state["labels"], state["clean"]
        self.n_averaged_ = state["n_averaged"]
        for memory, remembered in zip(self.memory_, state["memory"], strict=True):
            memory.state = remembered

    @staticmethod
    def forget_rows(state):
        """Return the state without what is remembered of rows, or averaged over them."""
        return {
            **state,
            "losses": [[], []],
            "mean_proba": [[], []],
            "labels": None,
            "clean": None,
            "memory": [{}, {}],
        }
