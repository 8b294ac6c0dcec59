"""How many images Co-Reg needs: the table of few images in docs/command_line.rst.

Fashion-MNIST, three seeds; each seed has its own training images, the fewer a part of the more.
Co-Reg has the settings of ``sklearn-npll fit``, on images and on the annotator's embeddings; and on
images from the candidate sets alone, without scores, also with a warm-up of a fifth of the epochs
instead of half. New images are the 5,000 of the test split.

    python benchmarks/bench_few_images.py
    python benchmarks/bench_few_images.py --seeds 0 --n-images 120 --epochs 4 --output /dev/null
"""

import argparse
import time

import numpy as np
from bench_fashion import load
from reporting import mean_and_std, write_result

from sklearn_npll import CoRegClassifier, PartialLabels, VLMPartialAnnotator
from sklearn_npll.datasets import load_fashion_mnist


def shares(annotator, n, seed, epochs):
    """Shares of right labels, and of images that the model names as its table does."""
    (X, y), _, (X_test, y_test) = load(n, seed)
    labels = annotator.fit_transform(X)
    sets = PartialLabels.from_candidates(labels.toarray(), classes=labels.classes, data=X)

    def fit(labels, warm_up="auto"):
        return CoRegClassifier(max_epochs=epochs, warm_up=warm_up, random_state=seed).fit(labels)

    learner, on_embeddings = fit(labels), fit(labels.replace(data=annotator.embed(X)))
    from_sets, soon = fit(sets), fit(sets, warm_up=epochs // 5)
    return {
        "annotator, in the table": np.mean(labels.classes[labels.scores.argmax(axis=1)] == y),
        "learned, in the table": np.mean(learner.transduction_ == y),
        "model agrees with its table": learner.score(X, learner.transduction_),
        "annotator, new images": annotator.score(X_test, y_test),
        "model, new images": learner.score(X_test, y_test),
        "from the sets, new images": from_sets.score(X_test, y_test),
        "from the sets, short warm-up, new images": soon.score(X_test, y_test),
        "on embeddings, in the table": np.mean(on_embeddings.transduction_ == y),
        "on embeddings, new images": on_embeddings.score(annotator.embed(X_test), y_test),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--n-images", type=int, nargs="+", default=[120, 300, 600, 1200])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--cache-dir", default="build/cache", help="embeddings are kept here")
    parser.add_argument("--output", help="default: benchmarks/results/few_images.json")
    arguments = parser.parse_args()
    prompts = load_fashion_mnist("test").class_prompts
    annotator = VLMPartialAnnotator(prompts, cache_dir=arguments.cache_dir)
    runs, start = [], time.perf_counter()
    for n in arguments.n_images:
        for seed in arguments.seeds:
            for option, share in shares(annotator, n, seed, arguments.epochs).items():
                runs.append({"task": n, "option": option, "seed": seed, "accuracy": float(share)})
    settings = {"epochs": arguments.epochs, "seconds": time.perf_counter() - start}
    result = settings | {"summary": mean_and_std(runs), "runs": runs}
    write_result("few_images", result, arguments.output)


if __name__ == "__main__":
    main()
