import pytest
from door_tools import Door


@pytest.fixture
def door(capsys):
    return Door(capsys)
