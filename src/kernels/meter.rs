//! What products did, noted while somebody watches the thread that asked for them. Otherwise a product costs one look
//! at a flag more.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Duration;

use super::close::Close;
use super::one_tile::OneTile;
use super::product::{Product, Rhs};
use super::stack::Cover;
use super::stream::Streaming;
use super::tiny::Tiny;
use super::turning::Turning;
use crate::simd::{Body, Isa, Simd};

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static NOTES: RefCell<Notes> = const { RefCell::new(Notes { kernel: None, parts: Vec::new() }) };
}

/// The kernel that computes most of a product: the instruction set and the tile of C that it holds in registers.
///
/// ```
/// use percycle::{Matrix, matmul, profile};
///
/// let (a, b, mut c) = (Matrix::zeros(64, 64), Matrix::zeros(64, 64), Matrix::zeros(64, 64));
/// let kernel = profile::kernel_of(|| matmul(a.view(), b.view(), c.view_mut())).1;
/// println!("{}", kernel.unwrap()); // such as: avx512 12x32
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kernel {
    /// The instruction set.
    pub isa: Isa,
    /// Rows of the tile.
    pub rows: usize,
    /// Columns of the tile.
    pub cols: usize,
    /// Whether the factors changed places, so that the tile is one of the transposed product. Shown as a `t`.
    pub swapped: bool,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let swapped = if self.swapped { "t" } else { "" };
        f.pad(&format!("{} {}x{}{swapped}", self.isa, self.rows, self.cols))
    }
}

/// What was noted.
#[derive(Default)]
pub(crate) struct Notes {
    /// The kernel of the last product.
    pub kernel: Option<Kernel>,
    /// The parts of what was shared among threads: which thread of the pool worked how long.
    pub parts: Vec<(usize, Duration)>,
}

/// Begins or ends watching this thread, and says what it was before.
pub(crate) fn watch(on: bool) -> bool {
    WATCHED.replace(on)
}

/// Whether somebody watches this thread.
#[inline(always)]
pub(crate) fn watched() -> bool {
    WATCHED.get()
}

/// What was noted since the last look.
pub(crate) fn take() -> Notes {
    NOTES.take()
}

/// Notes the kernel of a product that runs on one thread, or of the largest part of one.
pub(super) fn note_kernel(isa: Isa, product: &Product) {
    struct Chosen<'a>(Product<'a>, Isa);
    impl Body for Chosen<'_> {
        type Out = Kernel;
        #[inline(always)]
        fn call<S: Simd>(self, _: S) -> Kernel {
            let Chosen(product, isa) = self;
            if Tiny::of(&product).is_some() {
                return Kernel { isa, rows: 1, cols: S::Half::LANES, swapped: false };
            }
            let one = OneTile::of::<S>(&product);
            let (mut product, mut swapped) = (product, false);
            if one.is_none() {
                if let (Rhs::Plain(b), true) = (product.b, product.is_swapped::<S>()) {
                    (product, swapped) = (product.swapped(b), true);
                } else if let Some((whole, _)) = product.without_tail::<S>() {
                    product = whole;
                }
            }
            let half = product.n <= S::Half::LANES && !matches!(one, Some(OneTile::InPlace));
            let (rows, cols) = match (half, one.is_some()) {
                (true, one) => tile::<S::Half>(&product, one),
                (false, one) => tile::<S>(&product, one),
            };
            Kernel { isa, rows, cols, swapped }
        }
    }
    #[inline(always)]
    fn tile<S: Simd>(product: &Product, one: bool) -> (usize, usize) {
        let (m, n) = (product.m, product.n);
        // A small one that lies by columns is copied by rows.
        let copied = Close::<true>::of(product).is_some_and(|close| close.is_best::<S>());
        match (Streaming::of::<S>(product), Turning::of::<S>(product)) {
            (Some(streaming), _) if !one => streaming.at_once::<S>(),
            (_, Some(turning)) if !one && !copied => turning.tile::<S>(),
            _ => {
                let b_in_place = product.reads_b_in_place::<S>() || copied;
                Cover::of::<S>((m, n, product.k), product.a.row, b_in_place).tile::<S>()
            }
        }
    }
    if product.m == 0 || product.n == 0 {
        return; // There is none.
    }
    let kernel = isa.dispatch(Chosen(*product, isa));
    NOTES.with_borrow_mut(|notes| notes.kernel = Some(kernel));
}

/// Notes what the threads did among which work was shared: a part for each of so many. Others of the same thread are added up, and
/// a part that no thread was left for took no time.
#[cfg(feature = "rayon")]
pub(super) fn note_parts(threads: usize, times: Vec<(usize, Duration)>) {
    NOTES.with_borrow_mut(|Notes { parts, .. }| {
        let threads = threads.max(parts.len());
        parts.retain(|(_, time)| !time.is_zero());
        for (thread, time) in times {
            match parts.iter_mut().find(|(other, _)| *other == thread) {
                Some((_, sum)) => *sum += time,
                None => parts.push((thread, time)),
            }
        }
        let idle = parts.first().map_or(0, |(thread, _)| *thread);
        parts.resize(threads.max(parts.len()), (idle, Duration::ZERO));
    });
}
