"""Models of this project. configs/models/*.yaml name the functions that make them."""

from torch import Tensor, nn


class Scorer(nn.Module):
    """Rows of ``features`` numbers -> probabilities of ``classes`` classes."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).softmax(-1)


def scorer(features: int, classes: int) -> nn.Module:
    """What scorer.yaml asks for: a module as it stands at the start, before weights are loaded."""
    return Scorer(features, classes)
