"""Checks that examples split over devices."""


def check_splits(examples: int, devices: int) -> None:
    """Refuses a batch that does not split evenly.

    Raises:
      ValueError: the line has both numbers.
    """
    if examples % devices:
        raise ValueError(
            f"training.batch_size: {examples} examples do not split over {devices} devices"
        )
