//! Memory for packed operands: one buffer for each thread, aligned to a cache line, grown and kept.
//!
//! It holds one block of A and one of packed B (`gemm.rs`): 512 KiB and 8 MiB at most. Gradients that are used up where they
//! are made cannot be blocked over the batch: there it is 44 values for each sample, where that is more.

use std::cell::Cell;

use crate::buffer::Buffer;

thread_local! {
    static SCRATCH: Cell<Buffer> = Cell::default();
}

/// This thread's scratch, of at least `len` values, which are whatever was left there. [`give_back`] keeps it for the
/// next call. (Taken and given back, because a closure that ran on it would be compiled without the instruction set.)
#[inline(always)]
pub(super) fn take(len: usize) -> Buffer {
    if len == 0 {
        return Buffer::default();
    }
    let mut buffer = SCRATCH.take();
    buffer.grow(len);
    buffer
}

/// Keeps scratch for the next call on this thread.
#[inline(always)]
pub(super) fn give_back(buffer: Buffer) {
    if !buffer.is_empty() {
        SCRATCH.set(buffer);
    }
}

/// Bytes that this thread keeps.
pub(crate) fn held() -> usize {
    let buffer = SCRATCH.take();
    let bytes = buffer.bytes();
    SCRATCH.set(buffer);
    bytes
}
