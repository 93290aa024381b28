//! The product on one thread: which of the ways there are is taken.

use super::blocked::in_blocks;
use super::close::run_close;
use super::one_tile::one_tile;
use super::product::{Product, Rhs};
use super::shapes::{is_half, run_fitting};
use super::stream::Streaming;
use super::turning::Turning;
use crate::simd::{Body, Simd};

/// The product on the calling thread.
///
/// # Safety
/// The operands of the product are valid for its dimensions, and C overlaps neither A nor B.
pub(super) struct Serial<'a>(pub &'a Product<'a>);

impl Body for Serial<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let p = self.0;
        // SAFETY: the contract of `Serial` is that of `one_tile`.
        if unsafe { one_tile(s, p) } {
            return;
        }
        // Most products are none of these: they need not be read by way of a pointer to what they might have become.
        if let (Rhs::Plain(b), true) = (p.b, p.is_swapped::<S>()) {
            let swapped = &p.swapped(b);
            return run_fitting(s, swapped.n, Oriented(swapped));
        }
        if let Some((whole, tail)) = p.without_tail::<S>() {
            if !run_close::<S, false>(s, &whole) {
                s.run_outlined(Oriented(&whole));
            }
            return s.run_outlined(Oriented(&tail));
        }
        if is_half::<S>(p.n) {
            s.half().run_outlined(Oriented(p));
        } else {
            Oriented(p).call(s);
        }
    }
}

/// A product whose operands have their roles.
struct Oriented<'a>(&'a Product<'a>);

impl Body for Oriented<'_> {
    type Out = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let p = self.0;
        if let Some(streaming) = Streaming::of::<S>(p) {
            return streaming.run(s);
        }
        if let Some(turning) = Turning::of::<S>(p) {
            return s.run_outlined(turning);
        }
        in_blocks(s, p);
    }
}
