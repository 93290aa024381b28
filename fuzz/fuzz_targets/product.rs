//! Products (views and raw pointers) and linear over shapes, strides, alpha, beta, bias and activations, on every
//! instruction set, against the loop by bits.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use percycle::{Activation, Isa, MatMut, MatRef, PackedWeights, gemm, linear, linear_packed, sgemm};
use percycle_reference::activation as scalar;
use percycle_reference::product::{self as reference, Strided};

#[derive(Arbitrary, Debug)]
struct Input {
    shape: (u8, u16, u16),
    layouts: [u8; 3],
    padding: [u8; 3],
    alpha: Factor,
    beta: Factor,
    activation: u8,
    has_bias: bool,
    values: Vec<u8>,
}

/// A factor: often one of those that have a path of their own, which bytes alone hardly ever spell.
#[derive(Arbitrary, Debug)]
enum Factor {
    Zero,
    NegativeZero,
    One,
    Any(f32),
}

impl Factor {
    fn value(&self) -> f32 {
        match *self {
            Factor::Zero => 0.0,
            Factor::NegativeZero => -0.0,
            Factor::One => 1.0,
            Factor::Any(value) => value,
        }
    }
}

/// Strides of one of four layouts, padded, and the length that they span.
fn layout(rows: usize, cols: usize, which: u8, padding: u8) -> (usize, usize, usize) {
    let padding = usize::from(padding % 40);
    let (row, col) = match which % 4 {
        0 => (cols + padding, 1),
        1 => (1, rows + padding),
        2 => (2 * cols + padding, 2),
        _ => (3, 3 * rows + padding),
    };
    let span = if rows * cols == 0 { 0 } else { (rows - 1) * row + (cols - 1) * col + 1 };
    (row, col, span)
}

/// Numbers from the fuzzer's bytes, specials among them; without bytes, a plain sequence.
fn values(bytes: &[u8], salt: usize, len: usize) -> Vec<f32> {
    let specials = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, f32::MAX, -0.0];
    (0..len)
        .map(|i| match bytes.get((i * 31 + salt) % bytes.len().max(1)) {
            Some(&byte) if byte >= 250 => specials[usize::from(byte - 250)],
            Some(&byte) => (f32::from(byte) - 125.0) / 17.0 + i as f32 * 1e-3,
            None => (i % 13) as f32 - 6.0,
        })
        .collect()
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

fuzz_target!(|input: Input| {
    let m = usize::from(input.shape.0 % 40);
    // Of few rows, long ones.
    let n = usize::from(input.shape.1) % if m <= 5 { 1200 } else { 140 };
    let k = usize::from(input.shape.2) % if m * n > 600 { 60 } else { 2200 };
    let [pa, pb, pc] = input.padding;
    let (ra, ca, a_len) = layout(m, k, input.layouts[0], pa);
    let (rb, cb, b_len) = layout(k, n, input.layouts[1], pb);
    let (rc, cc, c_len) = layout(m, n, input.layouts[2], pc);
    let (a_data, b_data) = (values(&input.values, 0, a_len), values(&input.values, 1, b_len));
    let (before, bias) = (values(&input.values, 2, c_len), values(&input.values, 3, n));
    let strided =
        |data, rows, cols, row_stride, col_stride| Strided { data, rows, cols, row_stride, col_stride };
    let (a_ref, b_ref) = (strided(&a_data, m, k, ra, ca), strided(&b_data, k, n, rb, cb));
    let (alpha, beta) = (input.alpha.value(), input.beta.value());
    let want = reference::gemm(alpha, a_ref, b_ref, beta, strided(&before, m, n, rc, cc));
    let bias = input.has_bias.then_some(&bias[..]);
    let (activation, reference_activation) = match input.activation % 8 {
        0 => (Activation::Identity, scalar::Activation::Identity),
        1 => (Activation::Relu, scalar::Activation::Relu),
        2 => (Activation::LeakyRelu(0.3), scalar::Activation::LeakyRelu(0.3)),
        3 => (Activation::Sigmoid, scalar::Activation::Sigmoid),
        4 => (Activation::Tanh, scalar::Activation::Tanh),
        5 => (Activation::Gelu, scalar::Activation::Gelu),
        6 => (Activation::GeluTanh, scalar::Activation::GeluTanh),
        _ => (Activation::Silu, scalar::Activation::Silu),
    };
    let want_linear = reference::linear(a_ref, b_ref, bias, reference_activation);
    let (a, b) =
        (MatRef::strided(&a_data, m, k, ra, ca).unwrap(), MatRef::strided(&b_data, k, n, rb, cb).unwrap());
    let packed = PackedWeights::new(b);
    for isa in Isa::available() {
        isa.pin(|| {
            let check = |c: &[f32], want: &[f32], what: &str| {
                let mut inside = vec![false; c_len];
                for i in 0..m {
                    for j in 0..n {
                        let at = i * rc + j * cc;
                        inside[at] = true;
                        assert!(same(c[at], want[i * n + j]), "{what} {isa} {m}x{n}x{k} ({i}, {j})");
                    }
                }
                for (at, inside) in inside.into_iter().enumerate() {
                    assert!(inside || same(c[at], before[at]), "{what} {isa} {m}x{n}x{k} wrote at {at}");
                }
            };
            let mut c = before.clone();
            let view = MatMut::strided(&mut c, m, n, rc, cc).unwrap();
            gemm(alpha, a, b, beta, view).unwrap();
            check(&c, &want, "gemm");
            let mut c = before.clone();
            let (pa, pb, pc) = (a_data.as_ptr(), b_data.as_ptr(), c.as_mut_ptr());
            let [ra, ca, rb, cb, row, col] = [ra, ca, rb, cb, rc, cc].map(|stride| stride as isize);
            // SAFETY: the same matrices as the views above, which were checked.
            unsafe { sgemm(m, k, n, alpha, pa, ra, ca, pb, rb, cb, beta, pc, row, col) };
            check(&c, &want, "sgemm");
            let mut y = before.clone();
            linear(a, b, bias, activation, MatMut::strided(&mut y, m, n, rc, cc).unwrap()).unwrap();
            check(&y, &want_linear, "linear");
            let mut y = before.clone();
            linear_packed(a, &packed, bias, activation, MatMut::strided(&mut y, m, n, rc, cc).unwrap())
                .unwrap();
            check(&y, &want_linear, "linear_packed");
        });
    }
});
