"""Pages on this machine: a run while it works, and a finished result to look around in."""

from ptycho.viewer.live import LivePage
from ptycho.viewer.result import serve_result
from ptycho.viewer.server import PageServer

__all__ = ["LivePage", "PageServer", "serve_result"]
