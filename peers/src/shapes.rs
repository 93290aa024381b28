//! The grid of products.

use crate::Failure;

/// `C = A B` with A `m` x `k` and B `k` x `n`, row-major unless said to lie transposed.
#[derive(Clone, Copy, PartialEq)]
pub struct Shape {
    pub group: &'static str,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a_transposed: bool,
    pub b_transposed: bool,
}

impl Shape {
    fn new(group: &'static str, (m, n, k): (usize, usize, usize)) -> Shape {
        Shape { group, m, n, k, a_transposed: false, b_transposed: false }
    }

    /// A multiply and an add for each of the m n k terms.
    pub fn flops(&self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64
    }
}

impl std::str::FromStr for Shape {
    type Err = Failure;

    /// `MxNxK`, or with how A and B lie: `MxNxK nt`.
    fn from_str(text: &str) -> Result<Shape, Failure> {
        let (sides, layout) = text.split_once(' ').unwrap_or((text, "nn"));
        let sides = sides.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        let (&[m, n, k], ["nn" | "nt" | "tn" | "tt"]) = (&sides[..], [layout]) else {
            return Err(format!("{text}: MxNxK, please, then nn, nt, tn or tt").into());
        };
        let [a_transposed, b_transposed] = [layout.starts_with('t'), layout.ends_with('t')];
        Ok(Shape { a_transposed, b_transposed, ..Shape::new("given", (m, n, k)) })
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let letter = |transposed| if transposed { 't' } else { 'n' };
        let layout = [letter(self.a_transposed), letter(self.b_transposed)];
        write!(f, "{} {}x{}x{} {}{}", self.group, self.m, self.n, self.k, layout[0], layout[1])
    }
}

/// Edges of squares: tiny ones, powers of two with their neighbours, and round numbers between.
const SQUARES: [usize; 43] = [
    4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 80, 96, 100, 127, 128, 129, 160, 192, 200,
    255, 256, 257, 320, 384, 400, 511, 512, 513, 640, 768, 1000, 1023, 1024, 1025, 1536, 2048,
];

/// Layers as (batch, in, out): each in all three passes.
const LAYERS: [(usize, usize, usize); 11] = [
    (8, 784, 512),
    (32, 784, 512),
    (64, 784, 512),
    (128, 784, 512),
    (64, 512, 256),
    (64, 256, 10),
    (256, 1024, 1024),
    (512, 768, 3072),
    (128, 768, 3072),
    (1024, 64, 64),
    (1024, 128, 64),
];

/// Layers with few outputs, as (batch, in, out): each in all three passes.
const NARROW: [(usize, usize, usize); 4] = [(32, 128, 10), (256, 784, 10), (1024, 64, 1), (64, 784, 1)];

/// The forward products of small networks, (m, n, k).
const SMALL: [(usize, usize, usize); 6] =
    [(2, 3, 2), (2, 1, 3), (32, 32, 64), (32, 10, 32), (256, 256, 17), (256, 6, 256)];

/// Few rows: a batch of 1 to 7 through a layer, and rows against weights that lie in L3 or in memory, (m, n, k).
const FEW_ROWS: [(usize, usize, usize); 12] = [
    (1, 512, 784),
    (2, 512, 784),
    (3, 512, 784),
    (4, 512, 784),
    (5, 512, 784),
    (6, 512, 784),
    (7, 512, 784),
    (1, 1024, 1024),
    (4, 1024, 1024),
    (1, 3072, 3072),
    (4, 3072, 3072),
    (16, 3072, 3072),
];

/// One side far from the others, (m, n, k).
const SKINNY: [(usize, usize, usize); 10] = [
    (2048, 2048, 8),
    (2048, 8, 2048),
    (8, 2048, 2048),
    (1000, 1000, 1),
    (1000, 1, 1000),
    (16, 16, 4096),
    (4, 4, 4096),
    (4096, 16, 16),
    (16, 4096, 16),
    (2048, 2048, 32),
];

/// Odd and prime sides, (m, n, k).
const ODD: [(usize, usize, usize); 13] = [
    (2, 3, 5),
    (3, 5, 7),
    (13, 17, 1009),
    (31, 37, 41),
    (61, 67, 71),
    (97, 101, 103),
    (127, 131, 137),
    (199, 211, 223),
    (101, 997, 11),
    (997, 11, 101),
    (251, 509, 1021),
    (773, 787, 769),
    (1021, 251, 509),
];

/// All of the grid.
pub fn grid() -> Vec<Shape> {
    let plain =
        |group, shapes: &[_]| shapes.iter().map(move |&shape| Shape::new(group, shape)).collect::<Vec<_>>();
    let squares = SQUARES.map(|edge| (edge, edge, edge));
    let mut grid = plain("square", &squares);
    grid.extend(LAYERS.into_iter().flat_map(|layer| passes("layer", layer)));
    grid.extend(NARROW.into_iter().flat_map(|layer| passes("narrow", layer)));
    grid.extend(plain("small", &SMALL));
    grid.extend(plain("rows", &FEW_ROWS));
    // The same rows against weights in PyTorch's order.
    grid.extend(FEW_ROWS[..4].iter().map(|&rows| Shape { b_transposed: true, ..Shape::new("rows", rows) }));
    grid.extend(plain("skinny", &SKINNY));
    grid.extend(plain("odd", &ODD));
    // A layer as wide as it is deep has the same product in two passes.
    grid.dedup();
    grid
}

/// The products of a layer: Y = X W with W `[in, out]` and with W `[out, in]`, dX = delta W^T, and dW = X^T delta.
fn passes(group: &'static str, (batch, inputs, outputs): (usize, usize, usize)) -> [Shape; 4] {
    let forward = Shape::new(group, (batch, outputs, inputs));
    let back = Shape::new(group, (batch, inputs, outputs));
    let gradient = Shape::new(group, (inputs, outputs, batch));
    [
        forward,
        Shape { b_transposed: true, ..forward },
        Shape { b_transposed: true, ..back },
        Shape { a_transposed: true, ..gradient },
    ]
}
