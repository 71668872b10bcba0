"""Parts of training by hand: the schedule, the parameter groups, four images learnt by heart."""

import pytest
import torch
from conftest import tiny_backbone
from tiny_runs import corners
from torch.optim import AdamW

from lpmoe_bench.config.settings import TrainConfig
from lpmoe_bench.model.decoders.names import build_decoder
from lpmoe_bench.model.segmenter import Segmenter
from lpmoe_bench.training.loop import RunningStatistics, _parameter_groups, schedule
from method_zoo.contract.families import family_for
from method_zoo.options import get_method, list_methods


def test_schedule_by_hand():
    config = TrainConfig(warmup=0.2, power=1.0)
    # 10 steps: 2 of warm-up, then 8 of decay that would reach zero at step 10.
    expected = [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    assert [schedule(step, 10, config) for step in range(10)] == pytest.approx(expected)
    quadratic = TrainConfig(warmup=0.0, power=2.0)
    assert schedule(6, 11, quadratic) == pytest.approx(0.25)


def test_one_step_runs_train_at_the_full_rate():
    assert schedule(0, 1, TrainConfig()) == 1.0


def tiny_segmenter(method: str) -> Segmenter:
    torch.manual_seed(0)
    cls = get_method(method)
    adapted = cls(tiny_backbone(family_for(cls)))
    decoder = build_decoder("fpn", adapted, 1, {"width": 16})
    decoder.train_with("structure")
    return Segmenter(adapted, decoder)


@pytest.mark.parametrize("method", ["decoder_only", "vpt", "full"])
def test_groups_hold_every_trained_tensor_once_and_vectors_do_not_decay(method: str):
    segmenter, config = tiny_segmenter(method), TrainConfig(lr=3.0, decoder_lr=5.0)
    groups = _parameter_groups(segmenter, config)
    grouped = [id(p) for group in groups for p in group["params"]]
    trained = [id(p) for p in segmenter.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(trained)
    decoder = {id(p) for p in segmenter.decoder.parameters()}
    for group in groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)
            assert group["peak"] == (5.0 if id(parameter) in decoder else 3.0)


@pytest.mark.parametrize("method", list_methods())
def test_four_images_are_learnt_by_heart(method: str):
    segmenter, (images, masks) = tiny_segmenter(method), corners()
    optimizer = AdamW([p for p in segmenter.parameters() if p.requires_grad], lr=3e-3)
    segmenter.train()
    losses = []
    for _ in range(40):
        loss = segmenter(images, masks)
        losses.append(loss.item())
        if losses[-1] < 0.35 * losses[0]:
            break  # the rest would take time and show no more
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert min(losses) < 0.35 * losses[0]


def moved(segmenter: Segmenter) -> dict[str, torch.Tensor]:
    """The tensors that a forward pass in training has changed, as they were before it."""
    before = {name: tensor.clone() for name, tensor in segmenter.state().items()}
    segmenter.train()
    segmenter(torch.rand(2, 3, 64, 64))
    after = segmenter.state()
    return {name: old for name, old in before.items() if not torch.equal(old, after[name])}


def test_what_a_forward_pass_moves_is_found_once_and_put_back():
    segmenter = tiny_segmenter("lpmoe")
    norm = segmenter.decoder.norm_of_others = torch.nn.BatchNorm2d(3)
    segmenter.decoder.register_forward_pre_hook(
        lambda *given: [norm(torch.rand(2, 3, 4, 4)), None][1]
    )
    statistics = RunningStatistics(segmenter)
    good = statistics.copy()
    before = moved(segmenter)
    assert any(name.startswith("method.") for name in before)
    assert "decoder.norm_of_others.running_mean" in before
    statistics.restore(good)
    for name, tensor in segmenter.state().items():
        assert torch.equal(tensor, before.get(name, tensor)), name


def test_a_buffer_that_a_module_replaces_is_put_back_too():
    segmenter = tiny_segmenter("lora")
    segmenter.method.register_buffer("count", torch.zeros(()))
    statistics = RunningStatistics(segmenter)
    segmenter.method.count = segmenter.method.count + 1
    good = statistics.copy()
    segmenter.method.count = segmenter.method.count + 1
    statistics.restore(good)
    assert segmenter.method.count == 1


def test_a_method_without_running_statistics_has_nothing_to_copy():
    assert RunningStatistics(tiny_segmenter("lora")).copy() == []
