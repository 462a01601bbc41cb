"""What a model with external data loads to, or why it is refused."""

import re

import pytest
from load_models import ARRAY

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.load import load

DATA = ARRAY.tobytes()


def refused(source, pattern):
    """Return the one line with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        load(source)
    text = str(caught.value)
    assert re.search(pattern, text), text
    assert "\n" not in text
    assert len(text) < 500
    return text


def read(path):
    """Return the weight of the model."""
    return load(path).graph.initializers["w"].const_value.numpy()
