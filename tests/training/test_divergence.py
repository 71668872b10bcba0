"""Why training diverged: each cause by hand on a model of two layers."""

import pytest
import torch
from torch import nn

from lpmoe_bench.model.decoders.decoder import Examined
from lpmoe_bench.training.divergence import divergence_cause

NAMES = ["a", "b", "c", "d"]


class Tiny(nn.Module):
    """Logits of a convolution with a scale; its auxiliary loss is a setting."""

    def __init__(self):
        super().__init__()
        self.first, self.scale = nn.Conv2d(3, 1, 1), nn.Parameter(torch.ones(()))
        self.loss = mean_loss
        self.aux = torch.zeros(())
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, images, targets, examine):
        assert examine
        logits = list((self.first(images) * self.scale).split(1))
        losses = [self.loss(one, targets[k : k + 1]) for k, one in enumerate(logits)]
        return Examined(logits, losses), self.aux


def mean_loss(logits, mask):
    return (logits - mask).mean()


def cause(model=None, loss=mean_loss, images=None, chunk=4, backward=True):
    torch.manual_seed(0)
    images = torch.rand(4, 3, 2, 2) if images is None else images
    model = model or Tiny()
    model.loss = loss
    return divergence_cause(model, images, torch.zeros(4, 1, 2, 2), NAMES, chunk, backward)


@pytest.mark.parametrize("name", ["first.weight", "scale", "mean"])
def test_broken_weights_are_named(name):
    model = Tiny()
    model.state_dict()[name].fill_(float("nan"))
    assert cause(model) == f"the weights hold NaN or infinity: {name}"


def test_a_broken_input_and_its_image_are_named():
    images = torch.rand(4, 3, 2, 2)
    images[2, 0, 0, 0] = torch.nan
    assert cause(images=images) == "the input of image c is not finite"


@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_an_output_that_overflows_is_named_by_image(chunk):
    images = torch.ones(4, 3, 2, 2)
    images[1] = 3e38
    model = Tiny()
    nn.init.constant_(model.first.weight, 10.0)
    assert cause(model, images=images, chunk=chunk).startswith(
        "the model's output is not finite for image b"
    )


def test_auxiliary_loss_loss_and_all_images_are_told_apart():
    model = Tiny()
    model.aux = torch.tensor(float("inf"))
    assert cause(model) == "the method's own auxiliary loss is not finite"
    text = cause(loss=lambda logits, mask: logits.sum() / 0)
    assert text == "the loss is not finite for all 4 images at once, such as a"


def test_a_gradient_is_named_by_tensor_and_image():
    images = torch.rand(4, 3, 2, 2)
    images[3] = 0

    def loss(logits, mask):  # a root is 0 at 0, its slope is infinite
        return logits.abs().sqrt().mean()

    model = Tiny()
    nn.init.zeros_(model.first.bias)
    text = cause(model, loss, images)
    assert text == "the gradient of scale, first.weight, first.bias is not finite for image d"
    assert cause(model, loss, images, backward=False) == ""
    assert all(p.grad is None for p in model.parameters())


def test_a_norm_that_overflows_is_told():
    def loss(logits, mask):
        return (logits * 1e30).mean()

    text = cause(loss=loss)
    assert text.startswith("loss and gradients are finite image by image, but not together")
    assert "in first." in text or "in scale" in text
