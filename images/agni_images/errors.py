"""What can go wrong when an image is made."""


class ImageError(Exception):
    """An image can't be made; the text says what to do."""
