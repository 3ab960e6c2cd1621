"""The sections of the page: each is a function from a run's files to what its template shows."""
