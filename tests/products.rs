//! Products equal the loop to the bit: shapes around every edge, strides, transposes, alpha, beta, NaN and infinity, every
//! instruction set and pool size. Outputs are filled with NaN and surrounded by canaries.

mod common;

use common::{Numbers, alone, same};
use percycle::{
    Activation, Isa, MatMut, MatRef, Matrix, PackedWeights, gemm, linear, linear_packed, matmul, sgemm,
};
use percycle_reference::activation as scalar;
use percycle_reference::product::{self as reference, Strided as Mat};

/// Sizes around the tiles (6, 12 rows; 8, 16, 32 columns and their multiples), 0, 1 and primes.
const ROWS: [usize; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 25];
const COLS: [usize; 15] = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 64, 131];
const DEPTHS: [usize; 6] = [0, 1, 2, 3, 17, 40];

/// A matrix of this shape somewhere in a larger buffer, in one of several layouts.
struct Stored {
    data: Vec<f32>,
    offset: usize,
    rows: usize,
    cols: usize,
    strides: (usize, usize),
}

const CANARY: f32 = -7.25;

/// The C of a product that does not read it.
const NOTHING: Mat = Mat { data: &[], rows: 0, cols: 0, row_stride: 0, col_stride: 0 };

impl Stored {
    /// Layouts: row-major, column-major, padded rows, every second column, both strided.
    const LAYOUTS: usize = 5;

    fn new(rows: usize, cols: usize, layout: usize, mut value: impl FnMut() -> f32) -> Self {
        let strides = match layout {
            0 => (cols, 1),
            1 => (1, rows),
            2 => (cols + 3, 1),
            3 => (2 * cols, 2),
            _ => (2, 2 * rows + 1),
        };
        let offset = 5;
        let span = if rows * cols == 0 { 0 } else { (rows - 1) * strides.0 + (cols - 1) * strides.1 + 1 };
        let mut data = vec![CANARY; offset + span + 7];
        for i in 0..rows {
            for j in 0..cols {
                data[offset + i * strides.0 + j * strides.1] = value();
            }
        }
        Stored { data, offset, rows, cols, strides }
    }

    fn view(&self) -> MatRef<'_> {
        MatRef::strided(&self.data[self.offset..], self.rows, self.cols, self.strides.0, self.strides.1)
            .unwrap()
    }

    fn view_mut(&mut self) -> MatMut<'_> {
        MatMut::strided(&mut self.data[self.offset..], self.rows, self.cols, self.strides.0, self.strides.1)
            .unwrap()
    }

    fn mat(&self) -> Mat<'_> {
        let (row_stride, col_stride) = self.strides;
        Mat { data: &self.data[self.offset..], rows: self.rows, cols: self.cols, row_stride, col_stride }
    }

    /// Every element is `want`, row after row, and nothing between and around them was touched.
    fn check(&self, want: &[f32], what: impl Fn() -> String) {
        let mut seen = vec![false; self.data.len()];
        for i in 0..self.rows {
            for j in 0..self.cols {
                let at = self.offset + i * self.strides.0 + j * self.strides.1;
                seen[at] = true;
                let (got, want) = (self.data[at], want[i * self.cols + j]);
                assert!(same(got, want), "{}: element ({i}, {j}) is {got:e}, not {want:e}", what());
            }
        }
        for (value, seen) in self.data.iter().zip(seen) {
            assert!(seen || *value == CANARY, "{}: wrote outside of C", what());
        }
    }
}

/// `gemm` on raw pointers.
fn raw(alpha: f32, a: &Stored, b: &Stored, beta: f32, c: &mut Stored) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let strides = |of: &Stored| (of.strides.0 as isize, of.strides.1 as isize);
    let ((ra, ca), (rb, cb), (rc, cc)) = (strides(a), strides(b), strides(c));
    let (a, b, c) = (&a.data[a.offset..], &b.data[b.offset..], &mut c.data[c.offset..]);
    // SAFETY: the strides are those by which the matrices were stored.
    unsafe { sgemm(m, k, n, alpha, a.as_ptr(), ra, ca, b.as_ptr(), rb, cb, beta, c.as_mut_ptr(), rc, cc) };
}

fn on_every_isa(f: impl Fn(Isa)) {
    for isa in Isa::available() {
        isa.pin(|| f(isa));
    }
}

#[test]
fn every_shape_around_the_tiles() {
    on_every_isa(|isa| {
        let mut numbers = Numbers::new(1);
        for m in ROWS {
            for n in COLS {
                for k in DEPTHS {
                    let a = Stored::new(m, k, 0, || numbers.next());
                    let b = Stored::new(k, n, 0, || numbers.next());
                    let mut c = Stored::new(m, n, 2, || f32::NAN);
                    matmul(a.view(), b.view(), c.view_mut()).unwrap();
                    let want = reference::gemm(1.0, a.mat(), b.mat(), 0.0, NOTHING);
                    c.check(&want, || format!("{isa} {m}x{n}x{k}"));
                }
            }
        }
    });
}

#[test]
fn every_layout_alpha_and_beta() {
    on_every_isa(|isa| {
        let mut numbers = Numbers::new(2);
        for (m, n, k) in
            [(1, 1, 3), (1, 40, 9), (5, 1, 9), (13, 35, 18), (14, 33, 1), (3, 70, 0), (30, 17, 33)]
        {
            for layouts in 0..Stored::LAYOUTS.pow(3) {
                let (la, lb, lc) = (layouts % 5, layouts / 5 % 5, layouts / 25);
                for (alpha, beta) in [(1.0, 0.0), (1.0, 1.0), (0.3, 0.7), (-2.0, 0.0), (0.0, 0.5), (0.0, 0.0)]
                {
                    let a = Stored::new(m, k, la, || numbers.next());
                    let b = Stored::new(k, n, lb, || numbers.next());
                    let before = numbers.many(m * n);
                    let mut old = before.iter().copied();
                    let mut c =
                        Stored::new(m, n, lc, || old.next().filter(|_| beta != 0.0).unwrap_or(f32::NAN));
                    gemm(alpha, a.view(), b.view(), beta, c.view_mut()).unwrap();
                    let want = reference::gemm(alpha, a.mat(), b.mat(), beta, Mat::row_major(&before, m, n));
                    c.check(&want, || format!("{isa} {m}x{n}x{k} layouts {la}{lb}{lc} {alpha} {beta}"));
                }
            }
        }
    });
}

/// Around the blocks of k (1024), m (128 Ki values of A) and n (2 Mi values of B), where operands start to be packed or
/// copied, and C to be written by rows of tiles.
#[test]
fn across_block_edges() {
    let mut numbers = Numbers::new(3);
    for (m, n, k) in [
        (2, 3, 1023),
        (13, 33, 1024),
        (7, 20, 1025),
        (13, 50, 2049),
        (3, 1100, 130),
        (200, 520, 40),
        (25, 4200, 33),
        (193, 513, 257),
        (193, 1100, 257),
        (390, 520, 400),
        (5, 700, 1100),
        (131, 130, 1030),
        (17, 2150, 1024),
        (600, 140, 300),
        (1050, 520, 12),
        (610, 1000, 40),
    ] {
        for transposed in 0..4 {
            let a = Stored::new(m, k, transposed & 1, || numbers.next());
            let b = Stored::new(k, n, transposed >> 1, || numbers.next());
            let want = reference::gemm(1.0, a.mat(), b.mat(), 0.0, NOTHING);
            alone(|| {
                on_every_isa(|isa| {
                    let mut c = Stored::new(m, n, 0, || f32::NAN);
                    matmul(a.view(), b.view(), c.view_mut()).unwrap();
                    c.check(&want, || format!("{isa} {m}x{n}x{k} transposes {transposed}"));
                });
            });
        }
    }
}

/// Rows of B so far apart that tiles above one another take turns at asking for those of the next columns: as many tiles as k has steps for,
/// more, a single one; blocks of k; and columns that are left. And few rows, one of which fetches a large B for the others.
#[test]
fn b_far_away() {
    let mut numbers = Numbers::new(13);
    for ((m, n, k), row) in [
        ((31, 7610, 70), 70_000),
        ((9, 7600, 70), 70_000),
        ((40, 2100, 300), 16_384),
        ((5, 1100, 5801), 1103),
        ((2, 4500, 1417), 4500),
    ] {
        let a = Stored::new(m, k, 0, || numbers.next());
        let mut b = vec![f32::NAN; (k - 1) * row + n];
        b.chunks_mut(row).for_each(|b| b[..n].fill_with(|| numbers.next()));
        let far = Mat { data: &b, rows: k, cols: n, row_stride: row, col_stride: 1 };
        let want = reference::gemm(1.0, a.mat(), far, 0.0, NOTHING);
        alone(|| {
            on_every_isa(|isa| {
                let mut c = Stored::new(m, n, 0, || f32::NAN);
                matmul(a.view(), MatRef::strided(&b, k, n, row, 1).unwrap(), c.view_mut()).unwrap();
                c.check(&want, || format!("{isa} {m}x{n}x{k}, {row} from row to row of B"));
            });
        });
    }
}

/// Only the first block of k begins at `beta * C`, each copy of A is multiplied by alpha, and C is reached by way of a
/// buffer where its columns are strided. The last but one shape has several blocks in all three directions.
#[test]
fn factors_across_block_edges() {
    let mut numbers = Numbers::new(12);
    for ((m, n, k), layouts, alpha, beta) in [
        ((13, 50, 2049), [0, 0, 3], 0.3, 0.7),
        ((13, 50, 2049), [0, 1, 1], 1.0, 1.0),
        ((140, 130, 1030), [1, 0, 4], -2.0, 0.0),
        ((140, 130, 1030), [4, 3, 0], 1.0, -0.5),
        ((17, 2150, 1024), [0, 0, 2], 0.3, 1.0),
        ((600, 140, 300), [1, 0, 1], 0.3, 0.7),
        ((390, 520, 400), [2, 2, 0], -0.7, 0.3),
        ((1050, 520, 12), [0, 0, 2], 1.0, 0.7),
        ((610, 1000, 40), [1, 1, 1], 0.3, 1.0),
        ((129, 2080, 2048), [0, 1, 0], 0.3, 0.7),
        ((4, 1541, 4100), [2, 2, 2], 1.0, 1.0),
        ((2080, 17, 1100), [1, 1, 1], 1.0, 0.7),
    ] {
        let a = Stored::new(m, k, layouts[0], || numbers.next());
        let b = Stored::new(k, n, layouts[1], || numbers.next());
        let before = numbers.many(m * n);
        let want = reference::gemm(alpha, a.mat(), b.mat(), beta, Mat::row_major(&before, m, n));
        alone(|| {
            on_every_isa(|isa| {
                let what = || format!("{isa} {m}x{n}x{k} layouts {layouts:?} {alpha} {beta}");
                let old = || {
                    let mut old = before.iter().copied();
                    Stored::new(m, n, layouts[2], || old.next().filter(|_| beta != 0.0).unwrap_or(f32::NAN))
                };
                let mut c = old();
                gemm(alpha, a.view(), b.view(), beta, c.view_mut()).unwrap();
                c.check(&want, what);
                let mut c = old();
                raw(alpha, &a, &b, beta, &mut c);
                c.check(&want, what);
            });
        });
    }
}

const ACTIVATIONS: [(Activation, scalar::Activation); 8] = [
    (Activation::Identity, scalar::Activation::Identity),
    (Activation::Relu, scalar::Activation::Relu),
    (Activation::LeakyRelu(0.1), scalar::Activation::LeakyRelu(0.1)),
    (Activation::Sigmoid, scalar::Activation::Sigmoid),
    (Activation::Tanh, scalar::Activation::Tanh),
    (Activation::Gelu, scalar::Activation::Gelu),
    (Activation::GeluTanh, scalar::Activation::GeluTanh),
    (Activation::Silu, scalar::Activation::Silu),
];

#[test]
fn linear_and_packed_linear() {
    on_every_isa(|isa| {
        let mut numbers = Numbers::new(4);
        let shapes = [
            (1, 1, 0),
            (2, 1, 3),
            (1, 10, 64),
            (3, 100, 20),
            (13, 33, 7),
            (20, 65, 1100),
            (40, 81, 300),
            (7, 300, 40),
        ];
        for (batch, outputs, inputs) in shapes {
            for layout in 0..Stored::LAYOUTS {
                for (activation, reference_activation) in ACTIVATIONS {
                    let x = Stored::new(batch, inputs, layout, || numbers.next());
                    let w = Stored::new(inputs, outputs, layout, || numbers.next());
                    let bias = numbers.many(outputs);
                    let packed = PackedWeights::new(w.view());
                    for bias in [None, Some(&bias[..])] {
                        let want = reference::linear(x.mat(), w.mat(), bias, reference_activation);
                        let what =
                            || format!("{isa} {batch}x{outputs}x{inputs} layout {layout} {activation:?}");
                        let mut y = Stored::new(batch, outputs, layout, || f32::NAN);
                        linear(x.view(), w.view(), bias, activation, y.view_mut()).unwrap();
                        y.check(&want, what);
                        let mut y = Stored::new(batch, outputs, layout, || f32::NAN);
                        linear_packed(x.view(), &packed, bias, activation, y.view_mut()).unwrap();
                        y.check(&want, what);
                    }
                }
            }
        }
    });
}

/// Few rows beside a large B, and few steps of k into a large C: both are read and written row by row, in long pieces. Below,
/// at and above the most rows and steps; columns past one piece and within a vector.
#[test]
fn long_rows() {
    let mut numbers = Numbers::new(13);
    let few_rows = [
        (1, 4100, 19),
        (2, 2070, 17),
        (3, 1400, 23),
        (4, 1030, 15),
        (5, 1030, 15),
        (3, 131, 70),
        (4, 128, 64),
        // Beyond L2, where three and four rows stream too.
        (3, 4100, 135),
        (4, 1030, 515),
        (5, 1030, 515),
    ];
    let few_steps =
        (1..=9).map(|k| (301, 900, k)).chain([(66, 4100, 3), (129, 2070, 8), (9, 530, 4), (7, 270, 7)]);
    // The shortest rows that stream, with whole vectors and without.
    let few_steps = few_steps.chain((1..=8).flat_map(|k| [(5, 64, k), (6, 140, k), (7, 35, k)]));
    for shape in few_rows.into_iter().chain(few_steps) {
        // Rows of A, or its columns; rows of B and C next to each other, or apart.
        for layouts in [[0, 0, 0], [1, 2, 2], [3, 0, 2]] {
            starts_and_activations(&mut numbers, shape, layouts);
        }
    }
}

/// Few rows beside a B that lies by columns, and few columns beside an A that lies by rows: it is transposed on the way, through
/// memory or, for one or two, in registers, where columns lie pages apart or not and the last tile may have columns of the one before. With
/// few columns, C is reached by way of a buffer.
#[test]
fn few_rows_or_columns() {
    let mut numbers = Numbers::new(14);
    for few in 1..=13 {
        for (many, k) in [(27, 5), (70, 16), (37, 33), (64, 96), (50, 71)] {
            starts_and_activations(&mut numbers, (few, many, k), [0, 1, 0]);
            starts_and_activations(&mut numbers, (many, few, k), [0, 0, 0]);
        }
        // C of one tile.
        for (many, k) in [(16, 17), (24, 64), (20, 100)] {
            starts_and_activations(&mut numbers, (many, few, k), [0, 0, 0]);
        }
        if few <= 2 {
            for (many, k) in [(16, 40), (33, 1024), (57, 1024), (90, 25)] {
                starts_and_activations(&mut numbers, (few, many, k), [0, 1, 0]);
                starts_and_activations(&mut numbers, (many, few, k), [0, 0, 0]);
            }
        }
        starts_and_activations(&mut numbers, (few, 39, 50), [2, 3, 2]);
        starts_and_activations(&mut numbers, (39, few, 50), [2, 3, 2]);
        starts_and_activations(&mut numbers, (39, few, 50), [2, 1, 4]);
    }
}

/// Few rows beside few columns that lie one after the other: they are transposed piece by piece, and the chains go on with each.
#[test]
fn few_rows_and_columns() {
    let mut numbers = Numbers::new(17);
    for few in 1..=8 {
        for many in 1..=8 {
            for k in [64, 65, 130] {
                starts_and_activations(&mut numbers, (few, many, k), [0, 1, 0]);
            }
        }
        starts_and_activations(&mut numbers, (few, 7, 130), [1, 1, 2]);
    }
}

/// Columns beyond the last whole vector: few enough of them are a product of their own, with the factors exchanged.
#[test]
fn columns_beyond_whole_vectors() {
    let mut numbers = Numbers::new(15);
    for beyond in [1, 2, 4, 5, 8, 9, 10, 13] {
        for layouts in [[0, 0, 0], [0, 1, 0], [1, 0, 0], [2, 3, 2], [0, 0, 1]] {
            starts_and_activations(&mut numbers, (70, 16 + beyond, 150), layouts);
        }
        starts_and_activations(&mut numbers, (131, 48 + beyond, 66), [0, 0, 0]);
    }
}

/// Tiles of three vectors, and of two to the right of them; rows that are a step behind, with steps that are no multiple of
/// four; and blocks of the rows of a C that lies in many pages.
#[test]
fn three_vectors() {
    let mut numbers = Numbers::new(16);
    for (m, n) in
        [(4, 24), (7, 48), (8, 80), (12, 96), (13, 100), (16, 145), (17, 112), (25, 128), (140, 600)]
    {
        for k in [1, 15, 16, 28, 29, 30, 31, 67] {
            starts_and_activations(&mut numbers, (m, n, k), [0, 0, 0]);
        }
        for layouts in [[1, 0, 0], [2, 2, 2], [0, 0, 3], [4, 2, 1]] {
            starts_and_activations(&mut numbers, (m, n, 35), layouts);
        }
    }
}

/// A product with each way for its chains to begin, and a layer with each activation.
fn starts_and_activations(numbers: &mut Numbers, (m, n, k): (usize, usize, usize), [la, lb, lc]: [usize; 3]) {
    let a = Stored::new(m, k, la, || numbers.next());
    let b = Stored::new(k, n, lb, || numbers.next());
    let (before, bias) = (numbers.many(m * n), numbers.many(n));
    for beta in [0.0, 1.0, 0.7] {
        let want = reference::gemm(1.0, a.mat(), b.mat(), beta, Mat::row_major(&before, m, n));
        on_every_isa(|isa| {
            let mut old = before.iter().copied();
            let mut c = Stored::new(m, n, lc, || old.next().filter(|_| beta != 0.0).unwrap_or(f32::NAN));
            gemm(1.0, a.view(), b.view(), beta, c.view_mut()).unwrap();
            c.check(&want, || format!("{isa} {m}x{n}x{k} layouts {la}{lb}{lc} beta {beta}"));
        });
    }
    for (activation, reference_activation) in ACTIVATIONS {
        let want = reference::linear(a.mat(), b.mat(), Some(&bias), reference_activation);
        on_every_isa(|isa| {
            let mut y = Stored::new(m, n, lc, || f32::NAN);
            linear(a.view(), b.view(), Some(&bias), activation, y.view_mut()).unwrap();
            y.check(&want, || format!("{isa} {m}x{n}x{k} layouts {la}{lb}{lc} {activation:?}"));
        });
    }
}

/// The bias goes on with the blocks: those of the columns, and where the operands change roles (outputs as rows, 16 lanes
/// or 8) those of the rows.
#[test]
fn bias_across_block_edges() {
    alone(|| {
        on_every_isa(|isa| {
            let mut numbers = Numbers::new(11);
            for (batch, outputs, inputs, layout) in [(2, 3900, 1100, 0), (16, 300, 1100, 1)] {
                let x = Stored::new(batch, inputs, layout, || numbers.next());
                let w = Stored::new(inputs, outputs, layout, || numbers.next());
                let bias = numbers.many(outputs);
                let want = reference::linear(x.mat(), w.mat(), Some(&bias), scalar::Activation::Relu);
                let mut y = Stored::new(batch, outputs, layout, || f32::NAN);
                linear(x.view(), w.view(), Some(&bias), Activation::Relu, y.view_mut()).unwrap();
                y.check(&want, || format!("{isa} {batch}x{outputs}x{inputs} layout {layout}"));
            }
        })
    });
}

/// Weights packed under one instruction set serve all others.
#[test]
fn packed_weights_do_not_depend_on_the_instruction_set() {
    let mut numbers = Numbers::new(5);
    let x = Stored::new(9, 50, 0, || numbers.next());
    let w = Stored::new(50, 70, 1, || numbers.next());
    let want = reference::linear(x.mat(), w.mat(), None, scalar::Activation::Tanh);
    for packer in Isa::available() {
        let packed = packer.pin(|| PackedWeights::new(w.view()));
        on_every_isa(|isa| {
            let mut y = Stored::new(9, 70, 0, || f32::NAN);
            linear_packed(x.view(), &packed, None, Activation::Tanh, y.view_mut()).unwrap();
            y.check(&want, || format!("packed by {packer}, run by {isa}"));
        });
    }
}

/// A zero is multiplied like any other number: 0 * inf is NaN, and NaN goes where the chain carries it.
#[test]
fn nan_and_infinity_follow_the_chain() {
    on_every_isa(|isa| {
        let specials = [0.0, -0.0, 1.0, -2.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-40, f32::MAX];
        let mut numbers = Numbers::new(6);
        for (m, n, k) in [(1, 1, 4), (4, 9, 5), (13, 37, 6), (2, 33, 3)] {
            for alpha in [1.0, 0.0, -0.5, f32::INFINITY] {
                let mut special = || specials[(numbers.next().abs() * 1e4) as usize % specials.len()];
                let a = Stored::new(m, k, 0, &mut special);
                let b = Stored::new(k, n, 0, &mut special);
                let before: Vec<f32> = (0..m * n).map(|_| special()).collect();
                for beta in [0.0, 1.0, 0.5] {
                    let what = || format!("{isa} {m}x{n}x{k} alpha {alpha} beta {beta}");
                    let old = || {
                        let mut old = before.iter().copied();
                        Stored::new(m, n, 2, || old.next().unwrap_or(f32::NAN))
                    };
                    let want = reference::gemm(alpha, a.mat(), b.mat(), beta, Mat::row_major(&before, m, n));
                    let mut c = old();
                    gemm(alpha, a.view(), b.view(), beta, c.view_mut()).unwrap();
                    c.check(&want, what);
                    let mut c = old();
                    raw(alpha, &a, &b, beta, &mut c);
                    c.check(&want, what);
                }
            }
            let x = Stored::new(m, k, 0, || specials[(numbers.next().abs() * 1e4) as usize % specials.len()]);
            let w = Stored::new(k, n, 0, || numbers.next());
            for (activation, reference_activation) in ACTIVATIONS {
                let want = reference::linear(x.mat(), w.mat(), None, reference_activation);
                let mut y = Stored::new(m, n, 2, || 0.0);
                linear(x.view(), w.view(), None, activation, y.view_mut()).unwrap();
                y.check(&want, || format!("{isa} {m}x{n}x{k} {activation:?}"));
            }
        }
    });
}

/// Infinities and NaNs of single elements go their way across blocks, and not into the rows and columns beside them:
/// read in place, packed for the call or beforehand, with the roles swapped.
#[test]
fn nan_and_infinity_stay_in_their_rows_and_columns() {
    let mut numbers = Numbers::new(13);
    for (m, n, k) in [(200, 140, 1100), (13, 37, 1100), (16, 300, 1100)] {
        for layout in [0, 1] {
            let mut a: Vec<f32> = numbers.many(m * k);
            let mut b: Vec<f32> = numbers.many(k * n);
            a[3 * k + 10] = f32::INFINITY;
            // The next one is NaN from its second block on, the one after from its last step on.
            (a[5 * k + 10], a[5 * k + 1050]) = (f32::INFINITY, f32::NEG_INFINITY);
            a[m * k - 1] = f32::NAN;
            // 0 times infinity, and what begins in B.
            (b[10 * n + 4], b[1060 * n + 6]) = (0.0, f32::NEG_INFINITY);
            b[k * n - 1] = f32::MAX;
            let stored = |data: &[f32], rows, cols| {
                let mut data = data.iter().copied();
                Stored::new(rows, cols, layout, || data.next().unwrap())
            };
            let (x, w) = (stored(&a, m, k), stored(&b, k, n));
            let packed = PackedWeights::new(w.view());
            let mut bias = numbers.many(n);
            (bias[1], bias[2]) = (f32::NAN, f32::INFINITY);
            let want = reference::linear(x.mat(), w.mat(), Some(&bias), scalar::Activation::LeakyRelu(0.1));
            let broken = want.iter().filter(|y| !y.is_finite()).count();
            assert!(broken > m && broken < m * n / 2, "{broken} of {m}x{n} are not finite");
            alone(|| {
                on_every_isa(|isa| {
                    let what = || format!("{isa} {m}x{n}x{k} layout {layout}");
                    let activation = Activation::LeakyRelu(0.1);
                    let mut y = Stored::new(m, n, layout, || 0.0);
                    linear(x.view(), w.view(), Some(&bias), activation, y.view_mut()).unwrap();
                    y.check(&want, what);
                    let mut y = Stored::new(m, n, layout, || 0.0);
                    linear_packed(x.view(), &packed, Some(&bias), activation, y.view_mut()).unwrap();
                    y.check(&want, what);
                });
            });
        }
    }
}

/// A sum that is -0 (only a bias can begin one) becomes +0 in ReLU, in registers as everywhere, and stays what it is
/// elsewhere.
#[test]
fn minus_zero_goes_through_activations() {
    on_every_isa(|isa| {
        for (m, n, k) in [(3, 5, 2), (13, 70, 2), (3, 5, 1100), (40, 5, 2)] {
            let (x, w) = (Stored::new(m, k, 0, || 0.0), Stored::new(k, n, 0, || -1.5));
            let bias = vec![-0.0; n];
            for (activation, reference_activation) in ACTIVATIONS {
                let want = reference::linear(x.mat(), w.mat(), Some(&bias), reference_activation);
                let mut y = Stored::new(m, n, 2, || f32::NAN);
                linear(x.view(), w.view(), Some(&bias), activation, y.view_mut()).unwrap();
                y.check(&want, || format!("{isa} {m}x{n}x{k} {activation:?}"));
            }
        }
    });
}

/// Small integers, after benchdnn: every partial sum is an integer below 2^24, so the result is exact whatever the order,
/// and equals integer arithmetic. Mistrusted when mostly zero: a kernel that writes nothing must not pass.
#[test]
fn integers_are_exact() {
    on_every_isa(|isa| {
        let mut numbers = Numbers::new(7);
        for (m, n, k) in [(8, 8, 8), (33, 65, 129), (100, 10, 700), (64, 64, 1500), (13, 200, 2500)] {
            let mut integers = |rows, cols, bound: f32| {
                let values = (0..rows * cols).map(|_| (numbers.next() * bound).round());
                Matrix::from_vec(rows, cols, values.collect()).unwrap()
            };
            let (a, b, before) = (integers(m, k, 31.0), integers(k, n, 63.0), integers(m, n, 99.0));
            // As many terms as k, of 2 x 31 x 63 at most, and 3 x 99: less than 2^24.
            for (alpha, beta) in [(1.0, 0.0), (2.0, -3.0)] {
                let mut c = before.clone();
                gemm(alpha, a.view(), b.view(), beta, c.view_mut()).unwrap();
                let mut zeros = 0;
                for i in 0..m {
                    for j in 0..n {
                        let term = |p: usize| a.as_slice()[i * k + p] as i64 * b.as_slice()[p * n + j] as i64;
                        let sum: i64 = (0..k).map(term).sum();
                        let want = alpha as i64 * sum + beta as i64 * before.as_slice()[i * n + j] as i64;
                        zeros += usize::from(want == 0);
                        assert_eq!(c.as_slice()[i * n + j] as i64, want, "{isa} {m}x{n}x{k} ({i}, {j})");
                    }
                }
                assert!(
                    zeros * 4 < m * n,
                    "{zeros} zeros in {m}x{n}: the test would not notice a kernel that does nothing"
                );
            }
        }
    });
}

/// matrixmultiply sums in another order: the two differ by rounding only. Each chain of k steps is off by at most
/// k 2^-24 sum |a b| (Higham, Accuracy and Stability, 3.5), both of them.
#[test]
fn agrees_with_matrixmultiply() {
    let mut numbers = Numbers::new(8);
    for (m, n, k) in [(3, 5, 7), (64, 48, 100), (129, 65, 300)] {
        let a = numbers.many(m * k);
        let b = numbers.many(k * n);
        let (mut ours, mut theirs) = (vec![1.0; m * n], vec![1.0; m * n]);
        let (rows_a, rows_b, rows_c) = (k as isize, n as isize, n as isize);
        // SAFETY: row-major matrices of exactly these shapes.
        unsafe {
            let (pa, pb) = (a.as_ptr(), b.as_ptr());
            sgemm(m, k, n, 1.5, pa, rows_a, 1, pb, rows_b, 1, 0.5, ours.as_mut_ptr(), rows_c, 1);
            let c = theirs.as_mut_ptr();
            matrixmultiply::sgemm(m, k, n, 1.5, pa, rows_a, 1, pb, rows_b, 1, 0.5, c, rows_c, 1);
        }
        for i in 0..m {
            for j in 0..n {
                let size: f32 = 0.5 + (0..k).map(|p| (1.5 * a[i * k + p] * b[p * n + j]).abs()).sum::<f32>();
                let bound = 2.0 * (k + 2) as f32 * f32::EPSILON / 2.0 * size;
                let (x, y) = (ours[i * n + j], theirs[i * n + j]);
                assert!((x - y).abs() <= bound, "{m}x{n}x{k} ({i}, {j}): {x} and {y}");
            }
        }
    }
}

/// A column-major C, negative strides and a row reversed in place of a view: what raw pointers can say.
#[test]
fn sgemm_takes_negative_strides() {
    on_every_isa(|isa| {
        let mut numbers = Numbers::new(9);
        let (m, n, k) = (7, 34, 5);
        let a = numbers.many(m * k);
        let b = numbers.many(k * n);
        let mut c = vec![f32::NAN; m * n];
        // SAFETY: A is read from its last row upwards, B and C are row- and column-major, all inside their vectors.
        unsafe {
            let last_row = a.as_ptr().add((m - 1) * k);
            sgemm(
                m,
                k,
                n,
                1.0,
                last_row,
                -(k as isize),
                1,
                b.as_ptr(),
                n as isize,
                1,
                0.0,
                c.as_mut_ptr(),
                1,
                m as isize,
            );
        }
        let want = reference::gemm(1.0, Mat::row_major(&a, m, k), Mat::row_major(&b, k, n), 0.0, NOTHING);
        for i in 0..m {
            for j in 0..n {
                assert!(same(c[j * m + i], want[(m - 1 - i) * n + j]), "{isa} ({i}, {j})");
            }
        }
    });
}

#[cfg(feature = "rayon")]
#[test]
fn the_number_of_threads_changes_nothing() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let pools = [1, 2, 5].map(|threads| (threads, pool(threads)));
    let mut numbers = Numbers::new(10);
    // The first is packed together, its parts being high enough; B by columns is in others too.
    for (m, n, k) in
        [(801, 140, 50), (300, 130, 90), (70, 700, 100), (128, 128, 300), (1, 3000, 1100), (3000, 1, 1100)]
    {
        for transposed in 0..4 {
            let a = Stored::new(m, k, transposed & 1, || numbers.next());
            let b = Stored::new(k, n, transposed >> 1, || numbers.next());
            let packed = PackedWeights::new(b.view());
            let (bias, before) = (numbers.many(n), numbers.many(m * n));
            let want = reference::gemm(0.3, a.mat(), b.mat(), 0.7, Mat::row_major(&before, m, n));
            let want_linear = reference::linear(a.mat(), b.mat(), Some(&bias), scalar::Activation::Silu);
            for (threads, pool) in &pools {
                // Instruction sets are pinned inside, on the thread that hands out the parts.
                pool.install(|| {
                    on_every_isa(|isa| {
                        let what = || format!("{isa} {m}x{n}x{k} transposes {transposed} on {threads}");
                        for layout in [1, 2, 3] {
                            let mut old = before.iter().copied();
                            let mut c = Stored::new(m, n, layout, || old.next().unwrap());
                            gemm(0.3, a.view(), b.view(), 0.7, c.view_mut()).unwrap();
                            c.check(&want, what);
                            let (bias, silu) = (Some(&bias[..]), Activation::Silu);
                            let mut y = Stored::new(m, n, layout, || f32::NAN);
                            linear(a.view(), b.view(), bias, silu, y.view_mut()).unwrap();
                            y.check(&want_linear, what);
                            let mut y = Stored::new(m, n, layout, || f32::NAN);
                            linear_packed(a.view(), &packed, bias, silu, y.view_mut()).unwrap();
                            y.check(&want_linear, what);
                        }
                    });
                });
            }
        }
    }
}

#[test]
fn wrong_shapes_are_refused_by_name() {
    let (a, b) = (Matrix::zeros(2, 3), Matrix::zeros(4, 5));
    let mut c = Matrix::zeros(2, 5);
    let error = matmul(a.view(), b.view(), c.view_mut()).unwrap_err().to_string();
    assert_eq!(error, "matmul: a is 2x3 but b is 4x5: a needs as many columns as b has rows");
    let error = gemm(1.0, a.view(), b.view().t(), 0.0, c.view_mut()).unwrap_err().to_string();
    assert!(error.starts_with("gemm: a is 2x3 but b is 5x4"), "{error}");
    let error = matmul(a.view(), Matrix::zeros(3, 4).view(), c.view_mut()).unwrap_err().to_string();
    assert!(error.starts_with("matmul: c is 2x5 but the product is 2x4"), "{error}");
    let w = Matrix::zeros(3, 5);
    let error =
        linear(a.view(), w.view(), Some(&[0.0; 4]), Activation::Relu, c.view_mut()).unwrap_err().to_string();
    assert!(error.starts_with("linear: bias holds 4 elements but 5 are needed"), "{error}");
}

/// A B that threads pack together, but not all of it at once (2 Mi values).
#[cfg(feature = "rayon")]
#[test]
fn threads_pack_together_in_blocks() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let mut numbers = Numbers::new(14);
    let (m, n, k) = (400, 70, 40_000);
    let (a, b) = (Stored::new(m, k, 0, || numbers.next()), Stored::new(k, n, 1, || numbers.next()));
    let bias = numbers.many(n);
    let want = reference::linear(a.mat(), b.mat(), Some(&bias), scalar::Activation::Relu);
    pool.install(|| {
        on_every_isa(|isa| {
            let mut y = Stored::new(m, n, 2, || f32::NAN);
            linear(a.view(), b.view(), Some(&bias), Activation::Relu, y.view_mut()).unwrap();
            y.check(&want, || format!("{isa}"));
        });
    });
}
