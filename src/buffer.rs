//! Memory for matrices: it starts on a cache line, so that a vector of a row whose length is a multiple of it never lies
//! across two. (Where it does, reading from L2 takes twice as long on Intel's cores.)

use std::collections::TryReserveError;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Values in a cache line.
pub(crate) const LINE: usize = 16;
/// Values of `f32` in a page of memory.
pub(crate) const PAGE: usize = 1024;

/// Sixteen values that start on a cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct CacheLine([f32; LINE]);

impl CacheLine {
    pub(crate) const ZERO: CacheLine = CacheLine([0.0; LINE]);
}

/// A slice of `f32` that owns its memory.
#[derive(Clone, Default)]
pub(crate) struct Buffer {
    lines: Vec<CacheLine>,
    len: usize,
}

impl Buffer {
    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        Buffer { lines: vec![CacheLine::ZERO; len.div_ceil(LINE)], len }
    }

    /// Bytes of memory that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.lines.capacity() * size_of::<CacheLine>()
    }

    /// Makes it `len` values long, keeping what there is. Memory that is not needed any more is kept for later.
    pub(crate) fn try_resize(&mut self, len: usize) -> Result<(), TryReserveError> {
        let lines = len.div_ceil(LINE);
        if lines > self.lines.len() {
            self.lines.try_reserve_exact(lines - self.lines.len())?;
            self.lines.resize(lines, CacheLine::ZERO);
        }
        self.len = len;
        Ok(())
    }

    /// Makes it at least `len` values long.
    pub(crate) fn grow(&mut self, len: usize) {
        let lines = len.div_ceil(LINE).max(self.lines.len());
        self.lines.resize(lines, CacheLine::ZERO);
        self.len = self.len.max(len);
    }
}

impl From<&[f32]> for Buffer {
    fn from(values: &[f32]) -> Self {
        let mut buffer = Buffer::zeros(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

impl Deref for Buffer {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
