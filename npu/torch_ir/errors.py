"""What this package raises. Each message names the thing, what was expected and the remedy."""


class IRError(ValueError):
    """A graph, or a file that should hold one, is not what this package can work with."""
