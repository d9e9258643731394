"""From a checkpoint to predictions of images, and to files for other runtimes."""
