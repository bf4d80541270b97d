"""What a module returns that is made of objects which PyTorch does not look into. PyTorch is handed in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any


def plain(torch: Any, value: Any) -> Any:
    """``value`` with every object of a class that is no pytree as a mapping of its public attributes, those
    that hold tensors: a cache of ``transformers`` is {"layers": [{"keys": ..., "values": ...}]}. An object
    without tensors becomes None."""
    simple = (torch.Tensor, int, float, complex, str, bytes, type(None))
    return torch.utils._pytree.tree_map(
        lambda leaf: leaf if isinstance(leaf, simple) else _parts(torch, leaf, ()), value
    )


def _parts(torch: Any, item: Any, around: tuple[int, ...]) -> Any:
    """A tensor; the attributes of an object that hold some; None for anything else, and for an object that
    lies within itself."""
    if isinstance(item, torch.Tensor):
        return item
    if id(item) in around or isinstance(item, (type, torch.nn.Module)):
        return None
    found: dict[str, Any] = {}
    for name, value in getattr(item, "__dict__", {}).items():
        held = torch.utils._pytree.tree_map(lambda part: _parts(torch, part, (*around, id(item))), value)
        if not name.startswith("_") and any(
            part is not None for part in torch.utils._pytree.tree_leaves(held)
        ):
            found[name] = held
    return found or None


@contextmanager
def returning_plain(torch: Any, model: Any) -> Iterator[None]:
    """While it lasts, ``model`` returns what ``plain`` makes of its results."""
    forward, own = model.forward, "forward" in vars(model)

    @wraps(forward)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        return plain(torch, forward(*args, **kwargs))

    model.forward = replacement
    try:
        yield
    finally:
        if own:
            model.forward = forward
        else:
            del model.forward
