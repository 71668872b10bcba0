"""What only a GPU can show: steps in bfloat16, and a resumed run that ends bit-equal.

`pytest -m gpu` runs these; any other call hides the GPUs, so that its results are a CPU's. Without
one they are skipped. `LPMOE_BENCH_TEST_DEVICE=cpu pytest -m gpu` runs them on a CPU, which shows
that the tests themselves work.
"""

import os
import signal

import pytest
import torch
from conftest import FAMILIES, tiny_backbone
from lightning_fabric import Fabric
from tiny_runs import arguments, assert_same_result, call, call_until, losses, only_run

from lpmoe_bench.data.loader import as_floats
from lpmoe_bench.inference.predictor import new_fabric
from lpmoe_bench.model.decoders.names import build_decoder
from lpmoe_bench.model.segmenter import Segmenter
from method_zoo import get_method

pytestmark = pytest.mark.gpu
# Read when CUDA starts; without it products of matrices differ from run to run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# One of each kind: what is added to weights, biases, prompts, layers beside and behind, priors.
METHODS = ["lora", "bitfit", "vpt", "adaptformer", "convpass", "conv_lora", "ssf", "lst", "lpmoe"]
CASES = [(name, "plain") for name in METHODS]
CASES += [("lora", family) for family in FAMILIES if family != "plain"]


@pytest.fixture(scope="module")
def device() -> str:
    kind = os.environ.get("LPMOE_BENCH_TEST_DEVICE", "cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU is seen here: run pytest -m gpu where one is")
    return kind


def trained_step(name: str, family: str, device: str, precision: str):
    """Do one step of a tiny model; return its loss, gradient, whether all weights are finite."""
    fabric = Fabric(accelerator=device, devices=1, precision=precision)
    torch.manual_seed(0)
    method = get_method(name)(tiny_backbone(family))
    decoder = build_decoder(method.decoder, method, classes=1)
    decoder.train_with("structure")
    segmenter = Segmenter(method, decoder).train()
    trained = [p for p in segmenter.parameters() if p.requires_grad]
    model, optimizer = fabric.setup(segmenter, torch.optim.AdamW(trained, lr=1e-3))
    height, width = method.backbone.fixed_grid or (4, 6)
    images = torch.rand(2, 3, 16 * height, 16 * width).to(fabric.device)
    masks = (images.mean(1, keepdim=True) > 0.5).float()
    torch.manual_seed(1)
    loss = model(images, masks)
    fabric.backward(loss)
    gradient = torch.cat([p.grad.flatten().float() for p in trained if p.grad is not None]).cpu()
    optimizer.step()
    finite = all(bool(torch.isfinite(p).all()) for p in trained)
    return loss.item(), gradient, finite


@pytest.mark.parametrize(("name", "family"), CASES)
def test_a_step_in_bfloat16_is_finite_and_near_one_in_float32(device, name, family):
    (loss, gradient, finite), (exact, expected, _) = (
        trained_step(name, family, device, precision) for precision in ("bf16-mixed", "32-true")
    )
    assert finite
    assert loss != exact  # else nothing was computed in bfloat16
    assert loss == pytest.approx(exact, rel=0.05)
    assert torch.isfinite(gradient).all()
    assert torch.cosine_similarity(gradient, expected, dim=0) > 0.95
    assert gradient.norm().item() == pytest.approx(expected.norm().item(), rel=0.1)


def test_tf32_rounds_the_products_of_matrices(device):
    if device == "cpu":
        pytest.skip("no CPU computes in TF32")
    a, b = torch.rand(2, 512, 512, device=device) - 0.5
    exact = (a.double() @ b.double()).float()
    try:
        new_fabric(device, "tf32")
        rounded = ((a @ b) - exact).abs().max()
        new_fabric(device, "32-true")
        single = ((a @ b) - exact).abs().max()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert single < 1e-4 < rounded < 0.1


def test_bytes_become_the_same_floats_on_a_device_as_on_a_cpu(device):
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(as_floats(values.to(device)).cpu(), as_floats(values))


def test_a_step_without_a_number_changes_no_weight(device):
    """What the late reading of steps relies on: the fused AdamW leaves out what it is told to."""
    weight = torch.nn.Parameter(torch.ones(4, device=device))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    optimizer.found_inf = torch.zeros((), device=device)
    for found, moved in ((1.0, False), (0.0, True)):
        optimizer.found_inf.fill_(found)
        weight.grad = torch.full_like(weight, float("nan") if found else 1.0)
        optimizer.step()
        assert bool(torch.isfinite(weight).all())
        assert bool((weight != 1).all()) is moved
    assert optimizer.state[weight]["step"].item() == 1


def test_a_loss_that_is_no_number_ends_a_run_with_its_last_good_state(device, data, tmp_path):
    more = [f"runtime.device={device}", "train.lr=1e30", "train.warmup=0", "train.clip=null"]
    done = call(arguments(data, tmp_path, *(text for one in more for text in ("--set", one))))
    assert done.code == 7, done.stderr
    assert "the last good state is kept" in done.stderr
    assert list(tmp_path.rglob("resume.safetensors"))


def test_cuda_graphs_train_alike(device, data, tmp_path):
    if device == "cpu":
        pytest.skip("CUDA graphs are of GPUs")
    parts = {"plain": [], "graphs": ["--set", "runtime.compile=graphs"]}
    for name, more in parts.items():
        done = call(arguments(data, tmp_path / name, "--set", "runtime.device=cuda", *more))
        assert done.code == 0, done.stderr
    one, other = (losses(only_run(tmp_path / name)) for name in parts)
    assert other == pytest.approx(one, rel=1e-2)


def test_a_resumed_run_ends_bit_equal_on_the_same_device(device, data, tmp_path):
    """With torch's deterministic kernels. A loss without running sums and a method without bilinear
    reads: of these CUDA has no such kernels."""
    wanted = {"runtime.device": device, "train.precision": "bf16-mixed", "train.loss": "bce_dice"}
    more = [text for key, value in wanted.items() for text in ("--set", f"{key}={value}")]
    whole, parts = (arguments(data, tmp_path / name, *more) for name in ("whole", "parts"))
    torch.use_deterministic_algorithms(True)
    try:
        done = call(whole)
        assert done.code == 0, done.stderr
        assert call_until(parts, 5, lambda: signal.raise_signal(signal.SIGINT)).code == 130
        assert call(parts).code == 0
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same_result(only_run(tmp_path / "whole"), only_run(tmp_path / "parts"))
