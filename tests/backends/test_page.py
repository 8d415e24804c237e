"""The docs page on backends shows the table that the tests go by."""

from tests.backends.capabilities import PAGE, page


def test_the_page_is_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run python -m tests.backends.capabilities"
