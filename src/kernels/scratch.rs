//! Memory for packed operands: one buffer for each thread, aligned to a cache line, grown and kept.

use std::cell::Cell;

/// Sixteen values that start on a cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct CacheLine([f32; 16]);

/// A buffer of `f32` that starts on a cache line.
#[derive(Clone, Default)]
pub(crate) struct AlignedBuffer(Vec<CacheLine>);

impl AlignedBuffer {
    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut buffer = AlignedBuffer::default();
        buffer.grow(len);
        buffer
    }

    /// At least `len` values; keeps what there is.
    fn grow(&mut self, len: usize) {
        let lines = len.div_ceil(16);
        if self.0.len() < lines {
            self.0.resize(lines, CacheLine([0.0; 16]));
        }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        bytemuck::cast_slice(&self.0)
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

thread_local! {
    static SCRATCH: Cell<AlignedBuffer> = Cell::default();
}

/// This thread's scratch, of at least `len` values, which are whatever was left there. [`give_back`] keeps it for the
/// next call. (Taken and given back, because a closure that ran on it would be compiled without the instruction set.)
#[inline(always)]
pub(super) fn take(len: usize) -> AlignedBuffer {
    if len == 0 {
        return AlignedBuffer::default();
    }
    let mut buffer = SCRATCH.take();
    buffer.grow(len);
    buffer
}

/// Keeps scratch for the next call on this thread.
#[inline(always)]
pub(super) fn give_back(buffer: AlignedBuffer) {
    if !buffer.0.is_empty() {
        SCRATCH.set(buffer);
    }
}
