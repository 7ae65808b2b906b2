"""Run a model without dropout, and leave the model itself as it is."""

from __future__ import annotations

from typing import TypeVar, cast

from torch import nn

Model = TypeVar("Model")


def without_dropout(model: Model) -> Model:
    """Return a view of a model in eval mode that shares all its tensors.

    `model.eval()` would switch dropout off for everyone who holds the model:
    for a thread that is training it, and for as long as a half-read `stream`
    is alive. When two threads call it, the first to finish would switch
    dropout on again for the other. A view leaves the model untouched, so any
    number of threads may share one model in any mode. (If one of them trains
    it, the others see the weights change between two tokens.)

    Args:
        model: Left as it is. Anything that is not an `nn.Module` has no
            dropout and is returned itself.

    Returns:
        New modules around the same parameters, buffers and hooks. A forward
        hook registered on the view is not called by the model. If `model` is
        in training mode and was compiled with `torch.compile`, the view runs
        uncompiled.

    Raises:
        ValueError: A module in training mode has a `forward` that was
            replaced on the instance.
    """
    if not isinstance(model, nn.Module):
        return model
    training = any(module.training for module in model.modules())
    return cast(Model, _view(model, uncompiled=training))


def _view(module: nn.Module, uncompiled: bool) -> nn.Module:
    if uncompiled:  # the compiled code would run the module it was made from
        module = getattr(module, "_orig_mod", module)
    if module.training and "forward" in vars(module):
        raise ValueError(
            f"the forward of a {type(module).__name__} was replaced and may "
            f"run the module in training mode; call `model.eval()` first"
        )
    view = object.__new__(type(module))
    vars(view).update(vars(module))
    vars(view).update(
        training=False,
        _forward_hooks=module._forward_hooks.copy(),
        _modules={
            name: None if inner is None else _view(inner, uncompiled)
            for name, inner in module._modules.items()
        },
    )
    if uncompiled:
        vars(view).pop("_compiled_call_impl", None)
    return view
