//! Memory for packed operands: one buffer for each thread, aligned to a cache line, grown and kept.

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
