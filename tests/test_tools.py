"""The scripts in `tools/`."""

import pytest

from tools import count_lines

SOURCE = '''"""A module."""

import math  # a comment

# Another comment.
LIMIT = 3
"""What the constant means."""


def half(x):
    """Half.

    And more of it.
    """
    text = """of two
    lines"""
    return (
        math.floor(x)
        / 2
    ), text
'''


def test_lines_of_code_are_counted():
    assert count_lines.count(SOURCE) == 9
    assert count_lines.count('"""Nothing else."""\n') == 0


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, {"a": 2, "b": 1, "c": 0}),
        ({"a": {"b", "c"}, "b": set(), "c": {"b"}}, {"a": 2, "b": 0, "c": 1}),
        ({"a": {"b"}, "b": {"a"}}, None),
    ],
)
def test_boxes_stand_above_what_they_import(edges, expected):
    pytest.importorskip("grimp")
    from tools import draw_layers

    if expected is None:
        with pytest.raises(SystemExit, match="a -> b -> a is a circle"):
            draw_layers.levels(edges)
    else:
        assert draw_layers.levels(edges) == expected


def test_implied_lines_are_not_drawn():
    pytest.importorskip("grimp")
    from tools import draw_layers

    edges = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert draw_layers.without_implied(edges) == {"a": {"b"}, "b": {"c"}, "c": set()}
    assert draw_layers.chains({"a": 2, "b": 1, "c": 0}, {"a": {"c"}, "b": set(), "c": set()}) == [["a", "a>c@1", "c"]]
