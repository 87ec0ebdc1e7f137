"""Results become pictures and a page: nothing here knows anything but :mod:`npk.results`."""

from npk.report.figures import write_figures
from npk.report.page import write_page
from npk.report.track_page import write_track

__all__ = ["write_figures", "write_page", "write_track"]
