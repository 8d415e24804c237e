"""PtychoPINN's names for the workflow steps on PyTorch."""
