"""PyTorch, JAX and ONNX Runtime on the rows of benches/nets.csv, in the same rounds as percycle, on one core.

Made by `peers/run frameworks`. percycle's samples come from the program `serve`, which waits while others run.
"""

import argparse
import csv
import math
import os
import subprocess
import statistics
import tempfile
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--serve", required=True, help="the program `serve` of this package")
parser.add_argument("--out", default="out", help="where frameworks.csv is written")
parser.add_argument("--filter", default="", help="only rows whose description contains this text")
parser.add_argument("--rounds", type=int, default=9)
args = parser.parse_args()

# One core for everyone, percycle's process included. Before the imports: libraries count the cores when they load.
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

torch.set_num_threads(1)

NETS = Path(__file__).parents[2] / "benches" / "nets.csv"
SAMPLE = 500e-6  # A sample repeats its call for at least this many seconds.
SETTLING = 2e-3, 16, 20e-3  # And is made after so many seconds and calls, for a while at most: as in src/rounds.rs.
LIMIT = 4.0  # A row gets fewer rounds, but no less than 3, once this many seconds are over.
TIMED_RATE = 1e-6  # As in src/nets.rs.


class Net:
    """A row: the same weights and the same batch as in src/nets.rs."""

    def __init__(self, line, weights):
        sizes = [int(size) for size in line["sizes"].split("-")]
        self.batch, self.hidden = int(line["batch"]), line["hidden"]
        self.loss, self.task = line["loss"], line["task"]
        layers = range(len(sizes) - 1)
        self.layers = [(weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"]) for i in layers]
        # Arithmetic in f32, as there.
        i = np.arange(self.batch * sizes[0])
        self.x = ((i * 7919 % 1000).astype(np.float32) - np.float32(499.5)) / np.float32(500)
        self.x = self.x.reshape(self.batch, sizes[0])
        i = np.arange(self.batch * sizes[-1])
        if self.loss == "cross-entropy":
            self.targets = np.arange(self.batch) * 7 % sizes[-1]
        elif self.loss == "bce":
            self.targets = (i % 3 // 2).astype(np.float32).reshape(self.batch, -1)
        else:
            self.targets = ((i * 31 % 17).astype(np.float32) / np.float32(17)).reshape(self.batch, -1)

    def check_rate(self):
        return 1e-3 if self.task == "adam" else 0.1


def pytorch(net, rate, compiled):
    modules = []
    for n, (weight, bias) in enumerate(net.layers):
        if n:
            modules.append(torch.nn.ReLU() if net.hidden == "relu" else torch.nn.GELU())
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)
        modules.append(linear)
    model = torch.nn.Sequential(*modules)
    wrap = torch.compile if compiled else lambda function: function
    x = torch.tensor(net.x)
    if net.task == "predict":
        model = wrap(model)

        def predict():
            with torch.inference_mode():
                return model(x)

        return predict
    functional = torch.nn.functional
    losses = {
        "mse": functional.mse_loss,
        "bce": functional.binary_cross_entropy_with_logits,
        "cross-entropy": functional.cross_entropy,
    }
    loss_of, targets = losses[net.loss], torch.tensor(net.targets)
    # The fused optimizers are the fastest that PyTorch has on a CPU.
    optimizers = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    optimizer = optimizers[net.task](model.parameters(), lr=rate, fused=True)
    forward = wrap(lambda: loss_of(model(x), targets))

    def step():
        optimizer.zero_grad()
        loss = forward()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def jax_call(net, rate):
    # A copy of each: buffers that are donated must be JAX's own. Weights as [in, out].
    params = [(jnp.array(weight.T.copy()), jnp.array(bias)) for weight, bias in net.layers]
    x, targets = jnp.array(net.x), jnp.array(net.targets)

    def forward(params, x):
        for n, (weight, bias) in enumerate(params):
            if n:
                x = jax.nn.relu(x) if net.hidden == "relu" else jax.nn.gelu(x, approximate=False)
            x = x @ weight + bias
        return x

    if net.task == "predict":
        predict = jax.jit(forward)
        return lambda: predict(params, x).block_until_ready()

    def loss_of(params, x, targets):
        y = forward(params, x)
        if net.loss == "mse":
            return jnp.mean((y - targets) ** 2)
        if net.loss == "bce":
            return jnp.mean(jax.nn.softplus(y) - y * targets)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(y), targets[:, None], 1))

    def sgd(params, state, x, targets):
        loss, gradients = jax.value_and_grad(loss_of)(params, x, targets)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradients), state, loss

    def adam(params, state, x, targets):
        loss, gradients = jax.value_and_grad(loss_of)(params, x, targets)
        m, v, t = state
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradients)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradients)
        size, root = rate / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
        params = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) / root + 1e-8), params, m, v)
        return params, (m, v, t), loss

    zeros = lambda: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
    state = (zeros(), zeros(), jnp.float32(0)) if net.task == "adam" else ()
    update = jax.jit(adam if net.task == "adam" else sgd, donate_argnums=(0, 1))

    def step():
        nonlocal params, state
        params, state, loss = update(params, state, x, targets)
        return loss.block_until_ready()

    return step


def onnx_runtime(net):
    nodes, constants, value = [], [], "x"
    for n, (weight, bias) in enumerate(net.layers):
        if n:
            nodes.append(helper.make_node("Relu", [value], [f"a{n}"]))
            value = f"a{n}"
        constants += [numpy_helper.from_array(weight, f"w{n}"), numpy_helper.from_array(bias, f"b{n}")]
        nodes.append(helper.make_node("Gemm", [value, f"w{n}", f"b{n}"], [f"y{n}"], transB=1))
        value = f"y{n}"
    outputs = net.layers[-1][0].shape[0]
    described = lambda name, cols: helper.make_tensor_value_info(name, TensorProto.FLOAT, [net.batch, cols])  # noqa: E731
    graph = helper.make_graph(nodes, "mlp", [described("x", net.x.shape[1])], [described(value, outputs)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding, y = session.io_binding(), np.zeros((net.batch, outputs), np.float32)
    x = onnxruntime.OrtValue.ortvalue_from_numpy(net.x)
    result = onnxruntime.OrtValue.ortvalue_from_numpy(y)
    binding.bind_ortvalue_input("x", x)
    binding.bind_ortvalue_output(value, result)

    def predict():
        session.run_with_iobinding(binding)
        return result

    return predict


def calls_of(net, rate):
    """Each framework's call for a net."""
    # Or else the compiler, having seen the same functions with other nets, gives up in the end.
    torch.compiler.reset()
    calls = {
        "JAX": jax_call(net, rate),
        "PyTorch": pytorch(net, rate, False),
        "compiled": pytorch(net, rate, True),
    }
    if net.task == "predict":
        calls["ONNX Runtime"] = onnx_runtime(net)
    return calls


def number(result):
    """The loss, or the first output."""
    array = result.numpy() if isinstance(result, onnxruntime.OrtValue) else np.asarray(result)
    return float(array.ravel()[0])


def check(name, net, ours):
    """Stops when a framework does not compute what percycle does; the tolerances are those of src/bin/steps."""
    for framework, call in calls_of(net, net.check_rate()).items():
        theirs = [number(call()) for _ in ours]
        moved, scale = abs(ours[0] - ours[-1]), max(abs(ours[0]), 0.1)
        first, last = abs(ours[0] - theirs[0]), abs(ours[-1] - theirs[-1])
        if not (first <= 1e-4 * scale and last <= 1e-4 * scale + 1e-2 * moved):
            raise SystemExit(f"{name}: percycle goes from {ours[0]} to {ours[-1]}, {framework} from {theirs[0]} to {theirs[-1]}")


class Sampler:
    """Times a call, as often as makes a sample long enough. The first calls are not counted: they may compile."""

    def __init__(self, call):
        self.call, self.calls = call, 1
        for _ in range(3):
            call()
        while self.seconds() * self.calls < SAMPLE:
            self.calls *= 2

    def settle(self):
        least, calls, most = SETTLING
        start, called = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < least or (called < calls and elapsed < most):
            self.call()
            called += 1

    def seconds(self):
        start = time.perf_counter()
        for _ in range(self.calls):
            self.call()
        return (time.perf_counter() - start) / self.calls


def race(ask, row, net):
    """Seconds of a call for each contender and round, and the peaks."""
    samplers = {name: Sampler(call) for name, call in calls_of(net, TIMED_RATE).items()}
    start = time.perf_counter()
    seconds, peaks = {name: [] for name in ["percycle", *samplers]}, []
    ask(f"time {row}")
    for turn in range(args.rounds):
        if turn >= 3 and time.perf_counter() - start > LIMIT:
            break
        ours, peak = ask(f"time {row}")
        seconds["percycle"].append(ours)
        peaks.append(peak)
        for name, sampler in samplers.items():
            sampler.settle()
            seconds[name].append(sampler.seconds())
    return seconds, peaks


def main():
    weights = tempfile.TemporaryDirectory()
    server = subprocess.Popen(
        [args.serve, weights.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "RAYON_NUM_THREADS": "1"},
    )

    def ask(question):
        server.stdin.write(question + "\n")
        server.stdin.flush()
        return [float(answer) for answer in server.stdout.readline().split()]

    rows = []
    while line := server.stdout.readline().strip():
        rows.append(line.split(";"))
    versions = f"PyTorch {torch.__version__}, JAX {jax.__version__}, ONNX Runtime {onnxruntime.__version__}"
    print(f"{versions}; one core. Microseconds, and how many times as long as percycle.\n")
    others = ["JAX", "PyTorch", "compiled", "ONNX Runtime"]
    print(f"{'net, hidden activation, loss, task':52}{'percycle':>12}{'% peak':>8}", end="")
    print("".join(f"{name:>14}{'times':>7}" for name in others))
    Path(args.out).mkdir(parents=True, exist_ok=True)
    with open(NETS) as nets, open(Path(args.out) / "frameworks.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["row", "rounds", "framework", "microseconds", "times_as_long_as_percycle"])
        for row, line in enumerate(csv.DictReader(nets)):
            name, flops = rows[row]
            if args.filter not in name:
                continue
            net = Net(line, load_file(Path(weights.name) / f"{row}.safetensors"))
            check(name, net, ask(f"check {row}"))
            seconds, peaks = race(ask, row, net)
            ours = seconds["percycle"]
            share = statistics.median(float(flops) / time / peak for time, peak in zip(ours, peaks))
            print(f"{name:52}{1e6 * statistics.median(ours):12.2f}{100 * share:8.1f}", end="")
            for framework in ["percycle", *others]:
                theirs = seconds.get(framework)
                micros = 1e6 * statistics.median(theirs) if theirs else math.nan
                times = statistics.median(t / o for t, o in zip(theirs, ours)) if theirs else math.nan
                if theirs:
                    table.writerow([name, len(theirs), framework, f"{micros:.3f}", f"{times:.4f}"])
                if framework != "percycle":
                    print(f"{micros:14.2f}{times:7.2f}" if theirs else f"{'-':>14}{'-':>7}", end="")
            print(flush=True)
    server.stdin.close()
    server.wait()


main()
