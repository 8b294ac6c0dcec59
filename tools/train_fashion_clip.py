"""Train the small open_clip model that the package ships.

The data are pairs of a product photo and its title from a shop catalogue (`images.npz` with
concatenated JPEG bytes and offsets, `captions.csv` with one row an image). Captions are either the
title or a phrase made from the catalogue's attributes (article type, colour, gender). The images of
the benchmark data sets are never read here.

Usage::

    python tools/train_fashion_clip.py --data $SKLEARN_NPLL_DATA/fashion_products --out build/clip
    python tools/train_fashion_clip.py --data $SKLEARN_NPLL_DATA/fashion_products \
        --out build/tuned --init build/clip/epoch-18 --epochs 1 --lr 3e-4 --ema 0.98 \
        --package-templates --average-init 0.5

The second command gets the text tower used to the wording of the package's templates, and averages
the weights before and after.

The training state is written after each epoch; the same command run again continues from it.
"""

import argparse
import copy
import io
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from fashion_captions import FORMS, Captions
from PIL import Image
from safetensors.torch import load_file, save_file

from sklearn_npll.annotators._templates import resolve_templates

CONFIG = {
    "model_cfg": {
        "embed_dim": 64,
        "vision_cfg": {
            "image_size": 64,
            "layers": [1, 2, 2, 1],
            "width": 24,
            "head_width": 64,
            "patch_size": None,
        },
        "text_cfg": {
            "context_length": 24,
            "vocab_size": 49408,
            "width": 48,
            "heads": 4,
            "layers": 2,
        },
    },
    "preprocess_cfg": {
        "mean": list(open_clip.OPENAI_DATASET_MEAN),
        "std": list(open_clip.OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


def load_images(path, n_images, n_threads=2):
    """Decode the first JPEG images to uint8 (n_images, 3, 64, 64)."""
    archive = np.load(path)
    jpeg, offset = archive["jpeg"], archive["offset"]

    def decode(i):
        data = jpeg[offset[i] : offset[i + 1]].tobytes()
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)

    with ThreadPoolExecutor(n_threads) as pool:
        return torch.from_numpy(np.stack(list(pool.map(decode, range(n_images)))))


def object_boxes(images, threshold=235, chunk=2000):
    """Boxes (n, 4) = centre x, y and half sizes in [-1, 1] of what is not near-white."""
    boxes = []
    for part in images.split(chunk):
        ink = (part.float().mean(1) < threshold).float()
        found = []
        for dim in (1, 2):  # columns, then rows
            line = ink.mean(dim) > 0.02
            size = line.shape[1]
            first = line.float().argmax(1)
            last = size - line.flip(1).float().argmax(1)
            empty = ~line.any(1)
            first[empty], last[empty] = 0, size
            found.append(((first + last) / size - 1, (last - first) / size))
        (cx, hx), (cy, hy) = found
        boxes.append(torch.stack([cx, cy, hx, hy], 1))
    return torch.cat(boxes)


def uniform(n, low, high, generator):
    """Draw n uniform numbers."""
    return torch.rand(n, generator=generator) * (high - low) + low


def augment(images, boxes, generator, size=64, small=28):
    """Random views (n, 3, size, size) in [0, 1] of uint8 images.

    Most views are trimmed to the object. Some are then reduced to a small image, sharpened, turned
    to grey and inverted, as thumbnails of catalogues often are.
    """
    n = len(images)
    trim = torch.rand(n, generator=generator) < 0.75
    cx, cy, hx, hy = boxes.unbind(1)
    half = torch.where(trim, torch.maximum(hx, hy), 1.0)
    centre_x, centre_y = torch.where(trim, cx, 0.0), torch.where(trim, cy, 0.0)
    zoom = torch.where(
        torch.rand(n, generator=generator) < 0.4,
        uniform(n, 0.55, 0.9, generator),
        uniform(n, 0.9, 1.15, generator),
    )
    reach = (1 - zoom).clamp(min=0.05) * half
    centre_x = centre_x + reach * uniform(n, -1, 1, generator)
    centre_y = centre_y + reach * uniform(n, -1, 1, generator)
    angle = uniform(n, -0.15, 0.15, generator)
    aspect = torch.exp(uniform(n, -0.25, 0.25, generator) / 2)
    flip = torch.sign(torch.rand(n, generator=generator) - 0.5)
    shear = uniform(n, -0.1, 0.1, generator)
    scale = half * zoom
    theta = torch.stack(
        [
            torch.stack(
                [
                    flip * scale * aspect * angle.cos(),
                    scale * (shear - angle.sin()) * aspect,
                    centre_x,
                ],
                1,
            ),
            torch.stack(
                [flip * scale / aspect * angle.sin(), scale / aspect * angle.cos(), centre_y], 1
            ),
        ],
        1,
    )
    paper = images.float().div_(255).sub_(1)  # white is 0, so that padding is white

    def sample(rows, out):
        grid = F.affine_grid(theta[rows], (len(rows), 3, out, out), align_corners=False)
        return F.grid_sample(paper[rows], grid, align_corners=False).add_(1)

    views = torch.empty(n, 3, size, size)
    is_small = torch.rand(n, generator=generator) < 0.65
    rows = (~is_small).nonzero()[:, 0]
    views[rows] = sample(rows, size)
    rows = is_small.nonzero()[:, 0]
    thumb = sample(rows, small * 2)
    thumb = F.avg_pool2d(thumb, 2)
    blurred = F.avg_pool2d(thumb, 3, 1, 1, count_include_pad=False)
    thumb = thumb + uniform(len(rows), 0, 1, generator).view(-1, 1, 1, 1) * (thumb - blurred)
    views[rows] = F.interpolate(thumb.clamp(0, 1), size=size, mode="bicubic").clamp(0, 1)

    grey = torch.rand(n, generator=generator) < 0.6
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    views[grey] = (views[grey] * weights).sum(1, keepdim=True)
    gamma = torch.exp(uniform(n, -0.5, 0.5, generator)).view(-1, 1, 1, 1)
    views = views.clamp(1e-4, 1) ** gamma
    invert = torch.rand(n, generator=generator) < torch.where(grey, 0.6, 0.1)
    views[invert] = 1 - views[invert]
    return views


def contrastive_loss(image, text, positive, scale):
    """Symmetric cross-entropy in which all true pairs share the target equally."""
    logits = scale * image @ text.T
    target = positive.float()
    loss_image = -(target / target.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    loss_text = -(target / target.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (loss_image + loss_text) / 2


def prefetch(function, items):
    """Yield `function(item)` in order, computing one item ahead in a thread."""
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(function, items[0])
        for item in items[1:]:
            ready, ahead = ahead.result(), pool.submit(function, item)
            yield ready
        yield ahead.result()


def save_checkpoint(weights, folder, seen):
    """Write what open_clip reads with `local-dir:`: a configuration and half-precision weights.

    Embeddings of tokens that no caption holds were never trained; they are set to zero, so that a
    word the model has never met says nothing instead of something random.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    # attn_mask is rebuilt by open_clip; integers (batch-norm counters) keep their type
    state = {
        k: (v.half() if v.is_floating_point() else v).contiguous()
        for k, v in weights.items()
        if k != "attn_mask"
    }
    state["token_embedding.weight"][~seen] = 0
    save_file(state, folder / "open_clip_model.safetensors")


def build_model():
    """Make the model of `CONFIG` with open_clip's own classes."""
    cfg = copy.deepcopy(CONFIG["model_cfg"])
    return open_clip.CLIP(**cfg)


def main():
    """Run the training."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--share-titles", type=float, default=0.35)
    parser.add_argument("--balance", type=float, default=0.65)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--init", type=Path, help="folder of a checkpoint to start from")
    parser.add_argument(
        "--average-init", type=float, default=0.0, help="share of `init` in the saved weights"
    )
    parser.add_argument(
        "--package-templates",
        action="store_true",
        help="make captions with the package's 27 templates too",
    )
    parser.add_argument("--limit", type=int, help="use the first rows only (to try the script)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    table = pd.read_csv(args.data / "captions.csv").iloc[: args.limit]
    images = load_images(args.data / "images.npz", len(table))
    boxes = object_boxes(images)
    text_config = CONFIG["model_cfg"]["text_cfg"]
    context, vocab_size = text_config["context_length"], text_config["vocab_size"]
    tokenizer = open_clip.SimpleTokenizer(context_length=context)
    forms = FORMS + (resolve_templates("coreg-27") if args.package_templates else [])
    captions = Captions(table, tokenizer, 8, np.random.default_rng(args.seed), forms)
    weights = captions.sampling_weights(args.balance)
    weights /= weights.sum()
    mean = torch.tensor(CONFIG["preprocess_cfg"]["mean"]).view(1, 3, 1, 1)
    std = torch.tensor(CONFIG["preprocess_cfg"]["std"]).view(1, 3, 1, 1)

    model = build_model()
    if args.init is not None:
        initial = load_file(args.init / "open_clip_model.safetensors")
        model.load_state_dict(initial, strict=False)  # attn_mask is not in the file
    model.train().to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval()
    decay = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": decay, "weight_decay": args.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=args.lr,
        betas=(0.9, 0.98),
    )
    steps_per_epoch = len(table) // args.batch_size
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        args.lr,
        total_steps=args.epochs * steps_per_epoch,
        pct_start=0.1,
        cycle_momentum=False,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    state_file = args.out / "state.pt"
    first_epoch = 0
    if state_file.exists():
        state = torch.load(state_file)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        first_epoch = state["epoch"]

    for epoch in range(first_epoch, args.epochs):
        rng = np.random.default_rng([args.seed, epoch])
        generator = torch.Generator().manual_seed(args.seed * 1000 + epoch)
        order = rng.choice(len(table), size=steps_per_epoch * args.batch_size, p=weights)
        start, total = time.time(), 0.0

        def draw(index, rng=rng, generator=generator):
            views = augment(images[index], boxes[index], generator)
            batch = ((views - mean) / std).contiguous(memory_format=torch.channels_last)
            return batch, *captions.draw(index, args.share_titles, rng)

        for step, (batch, tokens, positive) in enumerate(
            prefetch(draw, order.reshape(-1, args.batch_size))
        ):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                image = model.visual(batch)
                text = model.encode_text(tokens)
            loss = contrastive_loss(
                F.normalize(image.float(), dim=1),
                F.normalize(text.float(), dim=1),
                positive,
                model.logit_scale.exp(),
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
                done = epoch * steps_per_epoch + step
                blend = 1 - min(args.ema, (1 + done) / (10 + done))
                for a, b in zip(
                    average.state_dict().values(), model.state_dict().values(), strict=True
                ):
                    if a.is_floating_point():
                        a.lerp_(b, blend)
                    else:
                        a.copy_(b)
            total += loss.item()
            if step % 20 == 19:
                print(
                    f"epoch {epoch} step {step + 1}/{steps_per_epoch} "
                    f"loss {total / (step + 1):.3f} "
                    f"{(step + 1) * args.batch_size / (time.time() - start):.0f} images/s",
                    flush=True,
                )
        torch.save(
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "epoch": epoch + 1,
            },
            state_file,
        )
        saved = average.state_dict()
        if args.init is not None:
            saved = {
                k: v.lerp(initial[k].to(v), args.average_init) if v.is_floating_point() else v
                for k, v in saved.items()
                if k in initial
            }
        seen = captions.seen_tokens(vocab_size)
        save_checkpoint(saved, args.out / f"epoch-{epoch + 1:02d}", seen)


if __name__ == "__main__":
    main()
