"""How VFM-Adapter makes a kernel for each image: meta-net, pooling by queries, hypernetwork."""

import torch.nn.functional as F
from torch import Tensor, nn


class MetaNet(nn.Module):
    """p = Linear(ReLU(Linear(z))): what a module's tokens say about the kernel it needs."""

    def __init__(self, dim: int, hidden: int, embedding: int):
        super().__init__()
        self.inner, self.out = nn.Linear(dim, hidden), nn.Linear(hidden, embedding)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches, (B, N, C), to embeddings, (B, N, e)."""
        return self.out(F.relu(self.inner(patches)))


class HyperNetwork(nn.Module):
    """From one embedding an image to a dense 3 x 3 kernel, in two factors."""

    def __init__(self, embedding: int, width: int, inner: int):
        super().__init__()
        self.rows, self.columns = nn.Linear(embedding, width * inner), nn.Linear(inner, 9 * width)
        self.shape = (width, inner)
        for layer in (self.rows, self.columns):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, embedding: Tensor) -> Tensor:
        """Embedding, (B, e), to kernels, (B, out, in, 3, 3): a row of the factors an output."""
        factors = self.columns(self.rows(embedding).unflatten(1, self.shape))
        return factors.unflatten(2, (self.shape[0], 3, 3))


def pooled(p: Tensor, queries: Tensor) -> Tensor:
    """Sum over the queries, (K, e), of their softmax pools of p, (B, N, e): (B, e).

    The scores are not scaled.
    """
    share = (queries @ p.mT).softmax(-1)  # (B, K, N)
    return (share @ p).sum(1)
