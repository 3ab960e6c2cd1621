"""A report that a person looks at: one HTML page of a run's folder, or of several."""

from jaxmoe.reporting.page.gather import RunFiles, gather
from jaxmoe.reporting.page.render import REPORT, page, write_page

__all__ = ["REPORT", "RunFiles", "gather", "page", "write_page"]
