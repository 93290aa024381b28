"""How the polynomials of src/kernels/math.rs were found: `pip install numpy scipy`, then run this.

Each is a least-squares fit on Chebyshev nodes, reweighted (Lawson) towards the smallest largest relative error, whose
coefficients are rounded to f32 one after another, lowest degree first, the rest being fitted again each time.
"""
import numpy as np
from scipy import special as sp


def fit(name, f, weight, lo, hi, degree, fixed=()):
    """Coefficients c of sum c[i] x^i ~ f(x) on [lo, hi], the error being weighted by weight(x)."""
    n = 4000
    x = (lo + hi) / 2 + (hi - lo) / 2 * np.cos(np.pi * (np.arange(n) + 0.5) / n)
    y, w = f(x), weight(x)
    c = [float(v) for v in fixed]
    while len(c) <= degree:
        rest = np.arange(len(c), degree + 1)
        target = y - sum(ci * x**i for i, ci in enumerate(c))
        scale = max(abs(lo), abs(hi)) ** rest
        basis = x[:, None] ** rest / scale
        lawson = np.ones(n)
        for _ in range(60):
            root = np.sqrt(lawson) * w
            sol = np.linalg.lstsq(basis * root[:, None], target * root, rcond=None)[0]
            error = np.abs((basis @ sol - target) * w)
            lawson *= error + 1e-3 * error.max()
            lawson /= lawson.mean()
        c.append(float(np.float32(sol[0] / scale[0])))
    error = np.abs(sum(ci * x**i for i, ci in enumerate(c)) - y) * w
    print(f"{name}: largest weighted error {error.max():.2e}")
    for ci in c[::-1]:
        print(f"    {np.float32(ci)!r},  // {ci.hex()}")
    return c


half = np.log(2) / 2
fit("exp(r), |r| <= ln2/2", np.exp, lambda r: np.exp(-r), -half * 1.01, half * 1.01, 6, fixed=(1.0, 1.0))

lo, hi = np.sqrt(0.5) - 1, np.sqrt(2) - 1
fit("(log(1+f) - f + f^2/2) / f^3", lambda f: (np.log1p(f) - f + f * f / 2) / f**3,
    lambda f: np.abs(f**3 / np.log1p(f)), lo * 1.01, hi * 1.01, 8)

fit("(tanh(x)/x - 1)/x^2 in x^2", lambda s: (np.tanh(np.sqrt(s)) / np.sqrt(s) - 1) / s, lambda s: s, 1e-6, 0.625**2, 4)

fit("erf(x)/x - 1 in x^2", lambda s: sp.erf(np.sqrt(s)) / np.sqrt(s) - 1, lambda s: np.sqrt(s) / sp.erf(np.sqrt(s)),
    1e-8, 1.0, 7)

# log(erfc(t)) = -t + t P(t): the weight turns an error of the logarithm into a relative error of erf.
fit("log(erfc(t))/t + 1", lambda t: np.log(sp.erfc(t)) / t + 1, lambda t: t * sp.erfc(t) / sp.erf(t), 0.98, 4.05, 7)

# Phi(-a) = g(a) exp(-a^2/2), and (a + 3) g is nearly flat in q = (a - 3)/(a + 3).
def g(q):
    a = 3 * (1 + q) / (1 - q)
    return (a + 3) * 0.5 * sp.erfcx(a / np.sqrt(2))


fit("(a+3) erfcx(a/sqrt2)/2 in q=(a-3)/(a+3)", g, lambda q: 1 / g(q), -1, 12.0 / 18.0, 11)
