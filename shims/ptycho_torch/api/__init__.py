"""PtychoPINN's names for driving its PyTorch side from another program."""
