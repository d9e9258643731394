"""Training progress, for parts of a model that follow a schedule."""

from detectron2.utils.events import get_event_storage, has_event_storage


def share_done(max_iter: int) -> float:
    """Fraction of the ``max_iter`` training steps done so far, from 0 to 1; 0 outside of training."""
    if not has_event_storage() or max_iter < 1:
        return 0.0
    return min(get_event_storage().iter / max_iter, 1.0)
