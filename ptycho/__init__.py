"""ptychopinn: ptychographic imaging by physics-informed networks, on any array framework.

The public names are those of `__init__.pyi`. Each is imported when it is first used, so that `import ptycho` is
immediate and touches no framework and no device.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
