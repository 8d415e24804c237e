"""Pages served on this machine: the progress of a run, and a viewer of finished results."""

from ptycho.viewer.live import LivePage
from ptycho.viewer.result import serve_result
from ptycho.viewer.server import PageServer

__all__ = ["LivePage", "PageServer", "serve_result"]
