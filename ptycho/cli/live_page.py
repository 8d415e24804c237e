"""The pages behind the `ptycho` command: `--live` of a run, and `view` of a finished result."""

from __future__ import annotations

import contextlib
import logging
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ptycho.cli.options import Call, CommonOptions, LiveOptions, PageOptions, ViewOptions, needed
from ptycho.cli.printing import print_lines
from ptycho.cli.progress_bars import ProgressBars
from ptycho.config.flags import SPELLINGS
from ptycho.config.processes import is_first_process
from ptycho.errors import ConfigError, DataError, PtychoError

if TYPE_CHECKING:
    from ptycho.viewer import LivePage

logger = logging.getLogger(__name__)


class ProgressDisplay(ProgressBars):
    """The bars of a command and, where `--live` asks for it, a page beside them that lasts until the command ends.

    Parameters
    ----------
    call : the command.
    scan, target : as :class:`ptycho.viewer.LivePage` takes them.
    """

    def __init__(self, call: Call, scan: Any, target: Any = None, output_dir: Path | None = None) -> None:
        super().__init__(not call[CommonOptions].quiet)
        self._page = _live_page(call, scan, target, output_dir)

    def __enter__(self) -> ProgressDisplay:
        """Start drawing."""
        super().__enter__()
        return self

    def counter(self, label: str) -> Callable[[int, int], None]:
        """Return a callback ``(done, total)`` that draws a bar with this label."""
        bar = super().counter(label)
        return bar if self._page is None else _Both(bar, self._page.counter(label))

    def epochs(self, label: str) -> Callable[..., None]:
        """Return a callback that draws the epochs and the metrics of the last one."""
        bar = super().epochs(label)
        return bar if self._page is None else _Both(bar, self._page.epochs(label))

    def show(self, result: Any) -> None:
        """Show a result on the page."""
        if self._page is not None:
            self._page.show(result)


class _Both:
    """A callback of a bar and one of a page, which looks on."""

    def __init__(self, bar: Callable[..., None], page: Any) -> None:
        self._bar, self._page, self.observe = bar, page, page.observe

    def __call__(self, *told: Any) -> None:
        """Tell both."""
        self._bar(*told)
        self._page(*told)


class _Ending:
    """Tells a live page how its command ended."""

    def __init__(self, page: LivePage, output_dir: Path | None) -> None:
        self._page, self._saved = page, "" if output_dir is None else f"Saved in {output_dir}."

    def __enter__(self) -> None:
        """Nothing: the page is there."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say it, and end the page."""
        if error is None:
            self._page.close("finished", self._saved)
        elif isinstance(error, KeyboardInterrupt):
            self._page.close("interrupted", "It was interrupted.")
        else:
            self._page.close("failed", str(error) if isinstance(error, PtychoError) else type(error).__name__)


def _live_page(call: Call, scan: Any, target: Any, output_dir: Path | None) -> LivePage | None:
    """The page of a command, if it is wanted; other processes of a distributed training have none."""
    options = call[LiveOptions]
    if not options.live and call.given & {"port", "open"}:
        raise ConfigError("--port and --open are of the page that --live serves: give --live too.")
    if not options.live or not is_first_process():
        return None
    from ptycho.viewer import LivePage

    about = {"title": scan.name or call.command, "command": call.line}
    page = LivePage(scan, target, about, options.port)
    call.closing.enter_context(_Ending(page, output_dir))
    _announce(page.url, options)
    return page


def view(call: Call) -> None:
    """Serve the page of a result until the command is interrupted."""
    from ptycho.viewer import serve_result
    from ptycho.workflows.results import load_reconstruction

    path, options = Path(needed(call, "result")), call[ViewOptions]
    result = load_reconstruction(path)
    scan, missing = _scan_beside(call, result, path)
    about = {"place": str(path)}
    with contextlib.closing(serve_result(result, scan, missing=missing, about=about, port=options.port)) as server:
        _announce(server.url, options)
        print_lines("Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def _announce(url: str, options: PageOptions) -> None:
    print_lines(f"page {url}")
    if options.open and not webbrowser.open(url):
        logger.warning("No web browser could be opened: open the address by hand.")


def _scan_beside(call: Call, result: Any, path: Path) -> tuple[Any, str]:
    """The scan of a result, or None and a sentence that says why not."""
    from ptycho.workflows.refine import scan_of_result
    from ptycho.workflows.scans import ScanOptions, open_scan

    options = call[ViewOptions]
    if options.scan is not None:
        return open_scan(options.scan, call[ScanOptions]), ""
    try:
        source = scan_of_result(result, path if path.is_dir() else path.parent)
        return open_scan(source, _as_it_was_read(call, result)), ""
    except PtychoError as error:
        logger.info("The page shows no measured patterns: %s", error)
        reason = str(error) if not isinstance(error, DataError) else str(error).partition(": give ")[0]
        return None, f"{reason.rstrip('.')}; name it with --scan."


def _as_it_was_read(call: Call, result: Any) -> Any:
    """How the scan was read for a result, by its record; flags of this command win, and files come from them alone."""
    from ptycho.workflows.scans import ScanOptions, reading_of

    options = call[ScanOptions]
    given = {name: getattr(options, name) for name in call.given & set(ScanOptions.__dataclass_fields__)}
    recorded = result.provenance.get("reading")
    if recorded is None:
        if result.provenance.get("command") and not given:
            print_lines(
                "note the result does not record how its scan was read: give the flags of reading that its command "
                "has, such as --crop, --bin or --patterns_file"
            )
        return options
    found, left_out = reading_of(recorded, given)
    for name, value in left_out.items():
        flag = SPELLINGS.get(name, (f"--{name}",))[0]
        print_lines(f"note left out: {flag} {value}; give it here if the scan is to be read with it")
    return found
