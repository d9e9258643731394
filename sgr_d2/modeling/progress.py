"""How far a training has come, for what follows a schedule inside a model."""

from detectron2.utils.events import get_event_storage, has_event_storage


def share_done(max_iter: int) -> float:
    """Share of ``max_iter`` steps that the running training has done, from 0 to 1; 0 outside of a training."""
    if not has_event_storage() or max_iter < 1:
        return 0.0
    return min(get_event_storage().iter / max_iter, 1.0)
