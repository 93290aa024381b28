//! Products of so few multiply-adds that nothing may come before them.

use super::epilogue::{Rest, descend_biases, split};
use super::math::{gate, leaky};
use super::pack::Operand;
use super::product::{Descent, Product, Rhs};
use super::tile::{Columns, Finish, PANEL, Start, descended};
use crate::simd::{Body, Simd};

/// Steps of k of all rows, two more counted for each row, up to which a product is [`Tiny`].
const TINY: usize = 160;
/// Its most columns: one vector, wherever there are vectors.
const NARROW: usize = 8;

/// A product of so few multiply-adds that handing it on would take longer than they do: by up to four rows at once, with no table
/// of kernels to look into.
pub(super) struct Tiny<'a> {
    m: usize,
    n: usize,
    k: usize,
    a: Operand,
    b: *const f32,
    b_row: isize,
    c: *mut f32,
    c_row: isize,
    /// Chains of row i begin at `scale` times what lies at `start + i * start_row`; at zero if this is null.
    start: *const f32,
    start_row: isize,
    scale: f32,
    finish: Finish<'a>,
    /// The update of the biases.
    descent: Option<&'a Descent<'a>>,
}

impl<'a> Tiny<'a> {
    /// The product, if it is one of those.
    #[inline(always)]
    pub(super) fn of(p: &Product<'a>) -> Option<Tiny<'a>> {
        let Rhs::Plain(b) = p.b else { return None };
        let few = (1..=NARROW).contains(&p.n) && p.m <= TINY && p.k <= TINY && p.m * (p.k + 2) <= TINY;
        if !(few && p.as_it_lies() && p.in_place(b)) {
            return None;
        }
        let (finish, rest) = split(p, true);
        let descent = match (finish, rest) {
            (_, None) => None,
            (Finish::Descend(_), Some(Rest::Descend(descent))) => Some(descent),
            _ => return None,
        };
        let (start, start_row, scale) = match p.start {
            Start::Zero => (std::ptr::null(), 0, 1.0),
            Start::Bias(bias) => (bias, 0, 1.0),
            Start::BiasRows(_) => return None,
            Start::Scaled(beta) => (p.c.cast_const(), p.c_row, beta),
        };
        let Product { m, n, k, a, c, c_row, .. } = *p;
        Some(Tiny { m, n, k, a, b: b.ptr, b_row: b.row, c, c_row, start, start_row, scale, finish, descent })
    }

    /// Columns from `j` on, as many as a vector has.
    #[inline(always)]
    #[allow(unused_assignments, reason = "nothing comes after the last rows")]
    fn columns<S: Simd>(&self, s: S, j: usize) {
        let columns = s.first(self.n - j);
        let (starts, scale) = (!self.start.is_null(), s.splat(self.scale));
        let (mut a_rows, mut start) = (self.a.ptr, self.start.wrapping_add(j));
        let (mut at, mut left) = (j as isize, self.m); // From where C begins, and rows.
        // Rows that share what is read of B.
        macro_rules! together {
            ($rows:literal, $x:ident, $at:ident => $finished:expr) => {{
                let (mut a, mut b) = (a_rows, self.b.wrapping_add(j));
                // SAFETY: A, B, C and what lies like C have these rows, columns and steps of k: `run`'s contract.
                unsafe {
                    let mut chains = [s.splat(0.0); $rows];
                    if starts {
                        for (i, chain) in chains.iter_mut().enumerate() {
                            let start = start.wrapping_offset(i as isize * self.start_row);
                            *chain = s.mul(scale, s.load_first(start, columns));
                        }
                    }
                    for _ in 0..self.k {
                        let of_b = s.load_first(b, columns);
                        for (i, chain) in chains.iter_mut().enumerate() {
                            let a = a.wrapping_offset(i as isize * self.a.row);
                            *chain = s.fma(s.splat(*a), of_b, *chain);
                        }
                        a = a.wrapping_offset(self.a.col);
                        b = b.wrapping_offset(self.b_row);
                    }
                    for (i, $x) in chains.into_iter().enumerate() {
                        let $at = at + i as isize * self.c_row;
                        s.store_first(self.c.wrapping_offset($at), columns, $finished);
                    }
                }
                a_rows = a_rows.wrapping_offset($rows * self.a.row);
                start = start.wrapping_offset($rows * self.start_row);
                at += $rows * self.c_row;
                left -= $rows;
            }};
        }
        macro_rules! rows {
            ($x:ident, $at:ident => $finished:expr) => {{
                while left >= 4 {
                    together!(4, $x, $at => $finished);
                }
                match left {
                    3 => together!(3, $x, $at => $finished),
                    2 => together!(2, $x, $at => $finished),
                    1 => together!(1, $x, $at => $finished),
                    _ => {}
                }
            }};
        }
        match self.finish {
            Finish::Keep => rows!(x, at => x),
            Finish::Relu => rows!(x, at => gate(s, x, x)),
            Finish::Leaky(slope) => rows!(x, at => leaky(s, s.splat(slope), x, x)),
            Finish::Gate(y) => rows!(x, at => gate(s, s.load_first(y.wrapping_offset(at), columns), x)),
            Finish::Descend(plain) => {
                let how = (s.splat(plain.scale), s.splat(-plain.rate));
                rows!(x, at => descended(s, how, x, s.load_first(self.c.wrapping_offset(at), columns)));
            }
        }
    }
}

impl Tiny<'_> {
    /// Computes it, unless biases are updated as well, and says whether it has.
    #[inline(always)]
    pub(super) fn alone<S: Simd>(&self, s: S) -> bool {
        if self.descent.is_none() {
            self.all_columns(s);
        }
        self.descent.is_none()
    }

    #[inline(always)]
    fn all_columns<S: Simd>(&self, s: S) {
        if const { S::Half::LANES >= NARROW } {
            self.columns(s.half(), 0);
        } else {
            for j in (0..self.n).step_by(S::LANES) {
                self.columns(s, j);
            }
        }
    }
}

impl Body for &Tiny<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        self.all_columns(s);
        if let Some(descent) = self.descent {
            s.run_outlined(Biases(self, descent));
        }
    }
}

/// The update of the biases that belongs to a tiny product.
struct Biases<'a>(&'a Tiny<'a>, &'a Descent<'a>);

impl Body for Biases<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Biases(tiny, descent) = self;
        let b = Columns { ptr: tiny.b, k: tiny.b_row, panel: PANEL as isize };
        // SAFETY: B holds the columns of C, and there is a bias for each.
        unsafe { descend_biases(s, descent, b, (tiny.k, tiny.n), 0) };
    }
}
