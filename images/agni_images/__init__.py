"""Container images without a daemon, a registry or a base image: `python -m agni_images`."""
