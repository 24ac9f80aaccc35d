"""What the libraries find doubtful, gathered as sentences for the report instead of lost in a log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARIES = ("ptycho", "tomo", "analysis", "pyaet")


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        sentence = record.getMessage()
        if sentence not in self.sentences:
            self.sentences.append(sentence)


@contextmanager
def collected_doubts() -> Iterator[list[str]]:
    """Yield a list that fills with the distinct warnings the libraries log meanwhile; none goes to stderr."""
    collector = _Collector()
    for name in LIBRARIES:
        logging.getLogger(name).addHandler(collector)
    try:
        yield collector.sentences
    finally:
        for name in LIBRARIES:
            logging.getLogger(name).removeHandler(collector)
