"""A study: its runs, what they cost, and what they found."""
