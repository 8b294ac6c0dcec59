"""The error of an image that cannot be read."""


class ImageReadError(ValueError):
    """An image that cannot be read.

    Parameters
    ----------
    index : int
        Row of the image in the samples.
    path : str or None
        Its file, if it came from one.
    reason : str
        What went wrong.

    Attributes
    ----------
    index, path, reason
        The parameters.
    """

    def __init__(self, index, path, reason):
        super().__init__(index, path, reason)
        self.index = index
        self.path = path
        self.reason = reason

    def __str__(self):
        where = f" ({self.path!r})" if self.path else ""  # a name may hold anything
        return f"Image {self.index}{where} cannot be read: {self.reason}"
