"""Titles and attribute phrases of a shop catalogue, as captions for `train_fashion_clip`."""

import numpy as np
import torch

# What a dictionary says an article of the catalogue may be called: synonyms and hypernyms.
# Article types that are not listed are called by their own (singular) name.
NOUNS = {
    "Tshirts": ["t-shirt", "tee shirt", "top", "tee"],
    "Lounge Tshirts": ["t-shirt", "top"],
    "Shirts": ["shirt", "button-down shirt", "collared shirt"],
    "Tops": ["top", "blouse", "women's top"],
    "Tunics": ["tunic", "top"],
    "Sweaters": ["sweater", "pullover", "jumper", "pullover sweater", "knitted sweater"],
    "Sweatshirts": ["sweatshirt", "pullover", "hoodie", "pullover sweatshirt"],
    "Jackets": ["jacket", "coat", "outerwear jacket"],
    "Rain Jacket": ["rain jacket", "raincoat", "coat"],
    "Blazers": ["blazer", "coat", "jacket"],
    "Nehru Jackets": ["jacket", "coat"],
    "Trousers": ["trousers", "pants", "trouser"],
    "Track Pants": ["track pants", "trousers", "pants"],
    "Lounge Pants": ["lounge pants", "pants"],
    "Jeans": ["jeans", "denim trousers", "pants"],
    "Jeggings": ["jeggings", "leggings"],
    "Rain Trousers": ["trousers", "pants"],
    "Dresses": ["dress", "frock", "gown"],
    "Casual Shoes": ["casual shoe", "shoe", "sneaker"],
    "Sports Shoes": ["sports shoe", "sneaker", "running shoe", "trainer", "shoe"],
    "Formal Shoes": ["formal shoe", "leather shoe", "shoe"],
    "Booties": ["bootie", "boot", "ankle boot"],
    "Heels": ["heel", "high-heeled shoe", "heeled sandal"],
    "Flats": ["flat shoe", "flat", "ballet flat"],
    "Sandals": ["sandal", "open-toed shoe"],
    "Sports Sandals": ["sports sandal", "sandal"],
    "Flip Flops": ["flip flop", "thong sandal", "slipper"],
    "Handbags": ["handbag", "bag", "purse"],
    "Backpacks": ["backpack", "bag", "rucksack"],
    "Rucksacks": ["rucksack", "bag", "backpack"],
    "Clutches": ["clutch", "bag", "clutch bag"],
    "Duffel Bag": ["duffel bag", "bag"],
    "Laptop Bag": ["laptop bag", "bag"],
    "Messenger Bag": ["messenger bag", "bag", "shoulder bag"],
    "Trolley Bag": ["trolley bag", "bag", "suitcase"],
    "Waist Pouch": ["waist pouch", "bag"],
    "Mobile Pouch": ["mobile pouch", "pouch"],
    "Caps": ["cap", "baseball cap"],
    "Watches": ["watch", "wrist watch"],
    "Sunglasses": ["sunglasses"],
    "Scarves": ["scarf"],
    "Shorts": ["shorts"],
    "Leggings": ["leggings"],
    "Tights": ["tights", "leggings"],
    "Wallets": ["wallet"],
    "Innerwear Vests": ["vest", "undershirt"],
    "Perfume and Body Mist": ["perfume", "body mist"],
}
SHOE_TYPES = {"Casual Shoes", "Sports Shoes", "Formal Shoes", "Flats", "Heels"}
FORMS = [
    "{}",
    "a {}",
    "a photo of a {}",
    "a picture of a {}",
    "a product photo of a {}",
    "a black and white photo of a {}",
    "a small photo of the {}",
    "this is a {}",
    "an image of one {}",
    "{} on a plain background",
    "a low resolution photo of a {}",
    "a close-up of my {}",
]


def singular(name):
    """Lower-case an article type and drop its plural ending."""
    name = name.lower()
    return name[:-1] if name.endswith("s") and not name.endswith("ss") else name


class Captions:
    """Titles and attribute phrases of the catalogue, tokenised once.

    An attribute caption says a noun and perhaps a colour and a gender. It is true of every image
    whose attributes agree, so `positives` marks all of these, not only the image it was drawn for.
    """

    def __init__(self, table, tokenizer, n_variants, rng, forms=FORMS):
        title = table["title"].fillna("").astype(str)
        article = table["articleType"].astype(str)
        is_boot = title.str.contains(r"\b(?:boots?|booties?)\b", case=False, regex=True)
        kind = np.where(is_boot & article.isin(SHOE_TYPES), "Booties", article)
        self.kinds, self.kind = np.unique(kind, return_inverse=True)
        nouns_of = [NOUNS.get(k, [singular(k)]) for k in self.kinds]
        self.nouns = sorted({noun for nouns in nouns_of for noun in nouns})
        noun_id = {noun: i for i, noun in enumerate(self.nouns)}
        self.true_noun = np.zeros((len(self.kinds), len(self.nouns)), dtype=bool)
        for k, nouns in enumerate(nouns_of):
            self.true_noun[k, [noun_id[noun] for noun in nouns]] = True
        colours, self.colour = np.unique(
            table["baseColour"].fillna("multi").astype(str).str.lower(), return_inverse=True
        )
        genders, self.gender = np.unique(table["gender"].astype(str), return_inverse=True)
        gender_word = {"Men": "men's", "Women": "women's", "Boys": "boys'", "Girls": "girls'"}

        n = len(table)
        self.titles = tokenizer(title.tolist()).to(torch.int32)
        self.tokens, self.said = [], []
        for _ in range(n_variants):
            texts = []
            said = np.full((n, 3), -1)
            use_colour, use_gender = rng.random((2, n)) < np.array([[0.3], [0.2]])
            for i in range(n):
                noun = rng.choice(nouns_of[self.kind[i]])
                words = [noun]
                said[i, 0] = noun_id[noun]
                if use_gender[i] and genders[self.gender[i]] in gender_word:
                    words.insert(0, gender_word[genders[self.gender[i]]])
                    said[i, 2] = self.gender[i]
                if use_colour[i]:
                    words.insert(0, colours[self.colour[i]])
                    said[i, 1] = self.colour[i]
                texts.append(forms[rng.integers(len(forms))].format(" ".join(words)))
            self.tokens.append(tokenizer(texts).to(torch.int32))
            self.said.append(said)

    def seen_tokens(self, vocab_size):
        """Mask (vocab_size,) of the tokens that occur in a caption."""
        seen = torch.zeros(vocab_size, dtype=torch.bool)
        for tokens in (self.titles, *self.tokens):
            seen[tokens.long().unique()] = True
        return seen

    def sampling_weights(self, power):
        """Weight n_kind ** -power, so that rare article types are seen more often."""
        count = np.bincount(self.kind)[self.kind]
        return np.maximum(count, 30.0) ** -power

    def draw(self, index, share_titles, rng):
        """Return tokens (b, context) and the positive mask (b images, b captions)."""
        variant = rng.integers(len(self.tokens), size=len(index))
        is_title = rng.random(len(index)) < share_titles
        tokens = torch.stack(
            [
                self.titles[i] if t else self.tokens[v][i]
                for i, v, t in zip(index, variant, is_title, strict=True)
            ]
        )
        said = np.stack([self.said[v][i] for i, v in zip(index, variant, strict=True)])
        noun, colour, gender = said.T
        true = self.true_noun[self.kind[index]][:, noun]
        true &= (colour == -1) | (colour == self.colour[index][:, None])
        true &= (gender == -1) | (gender == self.gender[index][:, None])
        true[:, is_title] = False
        np.fill_diagonal(true, True)
        true |= index[:, None] == index[None]
        return tokens.long(), torch.from_numpy(true)
