//! Memory for packed operands: one buffer for each thread, aligned to a cache line, grown and kept.

use std::cell::RefCell;

/// Sixteen values that start on a cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct CacheLine([f32; 16]);

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
    static SCRATCH: RefCell<AlignedBuffer> = RefCell::default();
}

/// Runs `f` with this thread's scratch of at least `len` values, whose contents are whatever was left there.
/// `f` must not come back here: products never nest.
pub(super) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    SCRATCH.with_borrow_mut(|buffer| {
        buffer.grow(len);
        f(buffer.as_mut_slice())
    })
}
