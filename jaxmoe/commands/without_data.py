"""What commands need of a config whose data is not here: a folder's name, and how many classes."""

import dataclasses

from jaxmoe.config import Experiment


def with_directory(experiment: Experiment) -> Experiment:
    """The experiment, of data that needs a folder with one of no name: none is read."""
    data = experiment.data
    if not data.needs_directory or data.directory:
        return experiment
    return dataclasses.replace(experiment, data=dataclasses.replace(data, directory="DIR"))


def classes_of(given: int | None, experiment: Experiment) -> int:
    """Returns how many classes there are: so many as were given, or what the data always has.

    Raises:
      ValueError: nobody says.
    """
    found = experiment.data.expected_classes if given is None else given
    if found is None:
        raise ValueError(
            f"--classes: missing; expected the number of classes: only the files of data.name = "
            f"{experiment.data.name} tell it, and none is read"
        )
    if found < 1:
        raise ValueError(f"--classes: {found} is not accepted; expected at least 1")
    return found
