"""The bottleneck of adapters: down to a few channels and up again, its output zero at the start."""

import math
from collections.abc import Callable

from torch import Tensor, nn


class Bottleneck(nn.Module):
    """Up(dropout(act(Down(x)))). Up starts at zero, Down Kaiming-uniform: of two factors that both
    start at zero neither would ever move."""

    def __init__(self, dim: int, width: int, act: Callable[[Tensor], Tensor], dropout: float = 0.0):
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        self.act, self.dropout = act, nn.Dropout(dropout)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for tensor in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.dropout(self.act(self.down(x))))
