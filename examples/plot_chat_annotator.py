"""
Candidates from a chat model
============================

A chat model that sees images is asked several questions about each, and what it answers in words
becomes a set of candidates. Here a small server in this script stands in for a hosted model, so
that nothing is sent away and nothing is paid; for a real one, change ``base_url`` and ``model``.
"""

# %%
# A server that talks
# -------------------
# The stand-in has OpenAI's interface. It looks at the image with the vision-language model that
# comes with the package, by a template that the question chooses, and talks as chat models do: sure
# of itself, in doubt, or not at all.
import base64
import io
import json
import tempfile
import textwrap
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from sklearn_npll import VLMPartialAnnotator
from sklearn_npll.annotators import ChatPartialAnnotator, OpenAIChat
from sklearn_npll.datasets import load_fashion_mnist

data = load_fashion_mnist("train")
eyes = VLMPartialAnnotator(data.class_prompts).fit(data.images[:1])
spoken = {name: prompts[0] for name, prompts in data.class_prompts.items()}


def answer(question, image):
    """What the stand-in says to a question about an image."""
    template = zlib.crc32(question.encode()) % len(eyes.templates_)
    proba = eyes.predict_proba_per_template(image[None])[0, template]
    first, second = (spoken[name] for name in eyes.classes_[np.argsort(-proba)[:2]])
    if proba.max() > 0.7:
        return f"This is a {first}."
    if proba.max() > 0.35:
        return f"I think it is a {first}, but it could be a {second}."
    return "I'm sorry, the picture is too small to tell."


class Handler(BaseHTTPRequestHandler):
    """Answers POST requests to /v1/chat/completions."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text, picture = request["messages"][0]["content"]
        encoded = picture["image_url"]["url"].partition(",")[2]
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
        reply = {"role": "assistant", "content": answer(text["text"], image)}
        usage = {"prompt_tokens": 100 + len(text["text"]) // 4, "completion_tokens": 12}
        body = json.dumps({"choices": [{"message": reply}], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Keep quiet."""


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()

# %%
# Ask
# ---
# Names with synonyms help to find the classes in the answers. With a ``cache_dir`` no question is
# asked, and paid for, twice.
classes = data.class_prompts | {"T-shirt/top": ["t-shirt", "tee"], "Trouser": ["trousers", "pants"]}
backend = OpenAIChat(
    "stand-in",
    base_url=f"http://127.0.0.1:{server.server_port}/v1",
    api_key_env=None,
    image_format="png",
    price_per_million_input_tokens=0.15,
    price_per_million_output_tokens=0.60,
)
annotator = ChatPartialAnnotator(classes, backend=backend, cache_dir=tempfile.mkdtemp())
rows = np.random.default_rng(0).permutation(len(data.images))[:100]
images, y = data.images[rows], data.target_names[data.target[rows]]
labels = annotator.fit_transform(images)
print(textwrap.fill(annotator.prompts_[0], 80), end="\n\n")
print(labels.summary(y))

# %%
# What it cost
# ------------
# Look at this after the first few images, and multiply. Then everything is in the cache.
print(*annotator.usage_.items(), sep="\n")
answers = annotator.answers(images)
print(f"answers from the cache afterwards: {annotator.usage_['cached']}")
server.shutdown()

# %%
# Look
# ----
# Some images with their true class, the four answers about each, and the candidates found in them.
# Where no answer names a class, all are candidates.
shown = np.r_[labels.set_sizes.argsort()[[-1, -10, -25]], 0]
fig, axes = plt.subplots(len(shown), 2, figsize=(9, 5.6), width_ratios=[1, 5], layout="constrained")
for (left, right), row in zip(axes, shown):
    left.imshow(images[row], cmap="gray")
    left.set(xticks=[], yticks=[], xlabel=y[row])
    right.axis("off")
    names = ", ".join(labels.classes[labels[int(row)]])
    right.text(0, 0.98, "\n".join(answers[row]), va="top", fontsize=9, family="monospace")
    right.text(0, 0.02, names, va="bottom", fontweight="bold", color="C0")

# %%
# The container is the same as that of any annotator, so any learner of the package can follow.
print(
    f"{annotator.usage_['requests']} questions about {len(images)} images gave sets of\n"
    f"{labels.mean_set_size:.2f} candidates, {labels.coverage(y):.0%} of them with the true class."
)
