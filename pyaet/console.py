"""What a person sees while a run works: progress bars on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Progress = Callable[[int, int, float], None]


class Console:
    """Progress and remarks on stderr, only where stderr is a terminal; results go to stdout elsewhere."""

    def __init__(self, terminal: bool | None = None) -> None:
        self.terminal = sys.stderr.isatty() if terminal is None else terminal

    def say(self, text: str) -> None:
        if self.terminal:
            print(text, file=sys.stderr)

    @contextmanager
    def task(self, title: str, value_name: str = "") -> Iterator[Progress]:
        """Yield a callback (done, total, value) that draws a bar with the rate, the time left and the value."""
        if not self.terminal:
            yield _silent
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[value]}"),
        )
        with Bars(*columns, console=RichConsole(stderr=True)) as bars:
            bar = bars.add_task(title, total=None, value="", rate="")

            def show(done: int, total: int, value: float) -> None:
                shown = f"{value_name} {value:.4g}" if value_name and value == value else ""
                speed = bars.tasks[0].speed
                rate = f"{speed:.2g}/s" if speed else ""
                bars.update(bar, completed=done, total=total, value=shown, rate=rate)

            yield show

    def table(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show rows of text; what ends in ◄ stands out."""
        if self.terminal:
            print_table(title, heads, rows, stderr=True)


def print_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, stderr: bool) -> None:
    """Print rows of text under their heads, aligned."""
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for head in heads:
        shown.add_column(head, justify="right")
    for row in rows:
        shown.add_row(*(Text(cell, "bold red" if cell.endswith("◄") else "") for cell in row))
    RichConsole(stderr=stderr).print(shown)


def _silent(done: int, total: int, value: float) -> None:
    """Progress in a pipe."""
