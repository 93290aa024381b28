//! Memory for packed operands: buffers of each thread, aligned to a cache line, grown and kept.
//!
//! One holds a block of A and one of packed B (`blocked.rs`): 512 KiB and 8 MiB at most. Gradients that are used up where they
//! are made cannot be blocked over the batch: there it is 44 values for each sample, where that is more. Another holds a packed
//! B that threads share (`parallel.rs`): 8 MiB at most.

use std::cell::Cell;

use crate::buffer::Buffer;

/// What a buffer is for.
#[derive(Clone, Copy)]
pub(super) enum Use {
    /// Blocks of operands of this thread's part.
    Blocks,
    /// A packed B of all parts.
    #[cfg(feature = "rayon")]
    Shared,
}

thread_local! {
    static SCRATCH: [Cell<Buffer>; 2] = Default::default();
}

/// This thread's scratch for a use, of at least `len` values, which are whatever was left there. [`give_back`] keeps it for the
/// next call. (Taken and given back, because a closure that ran on it would be compiled without the instruction set.)
#[inline(always)]
pub(super) fn take(what: Use, len: usize) -> Buffer {
    if len == 0 {
        return Buffer::default();
    }
    let mut buffer = SCRATCH.with(|scratch| scratch[what as usize].take());
    buffer.grow(len);
    buffer
}

/// Keeps scratch for the next call on this thread.
#[inline(always)]
pub(super) fn give_back(what: Use, buffer: Buffer) {
    if !buffer.is_empty() {
        SCRATCH.with(|scratch| scratch[what as usize].set(buffer));
    }
}

/// Bytes that this thread keeps.
pub(crate) fn held() -> usize {
    SCRATCH.with(|scratch| {
        let bytes = |cell: &Cell<Buffer>| {
            let buffer = cell.take();
            let bytes = buffer.bytes();
            cell.set(buffer);
            bytes
        };
        scratch.iter().map(bytes).sum()
    })
}
