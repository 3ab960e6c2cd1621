"""Figures of the page as inline SVG and PNG data: colours are the page's own, light or dark."""
