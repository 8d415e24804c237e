"""The array frameworks that the physics is tested on."""

from types import SimpleNamespace

import array_api_compat
import numpy as np
import pytest


@pytest.fixture(scope="session", params=["numpy", "torch", "array_api_strict"])
def framework(request):
    """``name``, ``xp``, ``asarray`` from numpy, and ``to_numpy`` back."""
    module = pytest.importorskip(request.param)
    if request.param == "array_api_strict":
        return SimpleNamespace(name=request.param, xp=module, asarray=module.asarray, to_numpy=np.asarray)
    xp = array_api_compat.array_namespace(module.asarray(0.0))
    return SimpleNamespace(
        name=request.param,
        xp=xp,
        asarray=lambda values: xp.asarray(np.array(values)),
        to_numpy=lambda values: np.asarray(values.detach() if hasattr(values, "detach") else values),
    )
