"""PtychoPINN's names for outside callers; nothing else in the library imports them."""
