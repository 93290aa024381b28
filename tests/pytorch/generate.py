"""What PyTorch computes: the JSON files beside this script, which tests/pytorch.rs compares with.

To make them again: `pip install torch==2.5.1 numpy`, then `python tests/pytorch/generate.py`.
"""
import copy
import json
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

# A share of each number: about what rounding does in a step, and small enough to act in proportion.
WOBBLE = 2.0**-20


def numbers(tensor):
    """A tensor as a list, its numbers with the fewest digits that give the same f32."""
    return [float(str(x)) for x in tensor.detach().float().numpy().ravel()]


def grid(*shape):
    """Random numbers from -1 to 1, exact in few digits."""
    return torch.randint(-64, 65, shape) / 64


def write(name, cases, **shared):
    """One case on each line."""
    head = json.dumps({"torch": torch.__version__, **shared})[:-1]
    lines = ",\n".join(json.dumps(case) for case in cases)
    Path(__file__).with_name(name).write_text(f'{head}, "cases": [\n{lines}\n]}}\n')


def activations():
    tails = torch.tensor([1e-6, 1e-3, 7.0, 8.0, 10.0, 20.0, 50.0, 100.0])
    x = torch.cat([torch.linspace(-6, 6, 49), tails, -tails])
    modules = {
        "identity": nn.Identity(),
        "relu": nn.ReLU(),
        "leaky_relu_0.01": nn.LeakyReLU(0.01),
        "leaky_relu_0.2": nn.LeakyReLU(0.2),
        "sigmoid": nn.Sigmoid(),
        "tanh": nn.Tanh(),
        "gelu": nn.GELU(),
        "gelu_tanh": nn.GELU(approximate="tanh"),
        "silu": nn.SiLU(),
    }
    cases = []
    for name, module in modules.items():
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        y.sum().backward()
        cases.append({"name": name, "y": numbers(y), "slope": numbers(leaf.grad)})
    write("activations.json", cases, x=numbers(x))


def losses():
    """Each loss after a layer that hands on its inputs exactly, and a step of SGD that shows the gradient."""
    rows, outputs = 8, 5
    logits, probabilities = 4 * grid(rows, outputs), (grid(rows, outputs) / 2 + 0.5).clamp(1 / 16, 15 / 16)
    targets, classes = grid(rows, outputs) / 2 + 0.5, torch.arange(rows) % outputs
    ends = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.5]).repeat(rows, 1)
    ends_targets = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.25]).repeat(rows, 1)
    settings = [
        ("mse", nn.MSELoss(), logits, targets),
        ("bce", nn.BCELoss(), probabilities, targets),
        ("bce_at_0_and_1", nn.BCELoss(), ends, ends_targets),
        ("bce_with_logits", nn.BCEWithLogitsLoss(), logits, targets),
        ("bce_with_logits_tails", nn.BCEWithLogitsLoss(), 25 * logits, targets),
        ("cross_entropy", nn.CrossEntropyLoss(), logits, classes),
        ("cross_entropy_smoothed", nn.CrossEntropyLoss(label_smoothing=0.1), logits, classes),
        ("cross_entropy_tails", nn.CrossEntropyLoss(label_smoothing=0.1), 25 * logits, classes),
    ]
    cases = []
    for name, loss, x, target in settings:
        layer = nn.Linear(outputs, outputs)
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
        y = layer(x)
        y.retain_grad()
        value = loss(y, target)
        value.backward()
        terms = rows if target is classes else rows * outputs
        # The same gradients with all terms positive, and with 1 added to the derivative of each output.
        size = y.grad.abs() + 1 / terms
        torch.optim.SGD(layer.parameters(), lr=1.0).step()
        cases.append({
            "name": name,
            "x": numbers(x),
            "targets": target.tolist() if target is classes else numbers(target),
            "value": numbers(value)[0],
            "tensors": [numbers(layer.weight), numbers(layer.bias)],
            "sizes": [numbers(size.T @ x.abs()), numbers(size.sum(0))],
        })
    write("losses.json", cases, rows=rows, outputs=outputs)


def train(start, batches, steps, optimizer, clip, wobble=0.0):
    """The loss of each step, and all weights and biases at the end.

    With a wobble, each number that enters a step, and each gradient that leaves it, changes by up to it.
    """

    def wobbled(tensor):
        return tensor * (1 + wobble * (2 * torch.rand_like(tensor) - 1))

    net = copy.deepcopy(start)
    tensors = list(net.parameters())
    optimizer, values = optimizer(tensors), []
    for step in range(steps):
        x, targets = (wobbled(t) for t in batches[step % len(batches)])
        near = {name: wobbled(p) for name, p in net.named_parameters()}
        loss = nn.functional.mse_loss(torch.func.functional_call(net, near, x), targets)
        optimizer.zero_grad()
        loss.backward()
        for tensor in tensors:
            tensor.grad = wobbled(tensor.grad)
        clip(tensors)
        optimizer.step()
        values.append(loss.detach())
    return [torch.stack(values), *(tensor.detach() for tensor in tensors)]


def sensitivity(start, batches, *settings, draws=32):
    """How far a wobble moves the results in f64, for each unit of it: the most of some draws."""
    start = copy.deepcopy(start).double()
    batches = [[t.double() for t in batch] for batch in batches]
    exact = train(start, batches, *settings)
    most = [torch.zeros_like(tensor) for tensor in exact]
    for _ in range(draws):
        moved = train(start, batches, *settings, wobble=WOBBLE)
        most = [torch.maximum(m, (a - b).abs() / WOBBLE) for m, a, b in zip(most, moved, exact)]
    # For each step the loss; for the weights the largest of each tensor.
    return [numbers(most[0]), [float(f"{m.max():.4g}") for m in most[1:]]]


def optimizers():
    inputs, hidden, outputs, rows, steps = 6, 8, 3, 8, 20
    start = nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.Tanh(),
        nn.Linear(hidden, hidden),
        nn.GELU(),
        nn.Linear(hidden, outputs),
    )
    batches = [(grid(rows, inputs), grid(rows, outputs)) for _ in range(5)]

    def sgd(**settings):
        return lambda tensors: torch.optim.SGD(tensors, lr=0.1, **settings)

    def adam(kind=torch.optim.Adam, **settings):
        return lambda tensors: kind(tensors, lr=0.02, **settings)

    def unclipped(tensors):
        pass

    def norm(limit):
        return lambda tensors: clip_grad_norm_(tensors, limit)

    settings = {
        "sgd": (sgd(), unclipped),
        "sgd_weight_decay": (sgd(weight_decay=0.1), unclipped),
        "sgd_momentum": (sgd(momentum=0.9), unclipped),
        "sgd_dampening": (sgd(momentum=0.9, dampening=0.3), unclipped),
        "sgd_nesterov": (sgd(momentum=0.9, nesterov=True, weight_decay=0.1), unclipped),
        "adam": (adam(), unclipped),
        "adam_weight_decay": (adam(weight_decay=0.1), unclipped),
        "adam_betas_eps": (adam(betas=(0.7, 0.95), eps=1e-3), unclipped),
        "adamw": (adam(torch.optim.AdamW), unclipped),
        "adamw_weight_decay": (adam(torch.optim.AdamW, weight_decay=0.5), unclipped),
        "clip_norm": (sgd(momentum=0.9), norm(0.25)),
        "clip_norm_adam": (adam(), norm(0.25)),
        "clip_norm_small": (sgd(), norm(1e-4)),
        "clip_value": (sgd(momentum=0.9), lambda tensors: clip_grad_value_(tensors, 0.02)),
    }
    cases = []
    for name, setting in settings.items():
        # Biases, inputs and targets so small that the 1e-6 in clip_grad_norm_ counts.
        scale = 2.0**-10 if name == "clip_norm_small" else 1.0
        net, data = copy.deepcopy(start), [[scale * t for t in batch] for batch in batches]
        with torch.no_grad():
            for layer in net[::2]:
                layer.bias *= scale
        losses, *tensors = train(net, data, steps, *setting)
        loss_sensitivity, tensor_sensitivity = sensitivity(net, data, steps, *setting)
        cases.append({
            "name": name,
            "scale": scale,
            "losses": numbers(losses),
            "loss_sensitivity": loss_sensitivity,
            "tensors": [numbers(tensor) for tensor in tensors],
            "tensor_sensitivity": tensor_sensitivity,
        })
    write(
        "optimizers.json",
        cases,
        rows=rows,
        units=[inputs, hidden, hidden, outputs],
        start=[numbers(tensor) for tensor in start.parameters()],
        batches=[[numbers(tensor) for tensor in batch] for batch in batches],
    )


torch.manual_seed(0)
torch.set_num_threads(1)
activations()
losses()
optimizers()
