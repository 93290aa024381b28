//! The ways in which a microkernel reads its B.

/// How a kernel reads B. Types, not numbers, because a profile shows their names.
pub(super) trait Reads {
    /// Of each vector all columns exist.
    const WHOLE: bool = false;
    /// B lies by columns, each contiguous over k and `b_panel` after the one before: they are transposed a few steps ahead
    /// of their use. (16 of them at most: more would be more streams than the hardware foresees.)
    const TRANSPOSES: bool = false;
    /// B lies likewise, and so many times four steps of it are transposed in registers. (Not 0: the last vector
    /// ends with the last column, and A is contiguous over k.)
    const FOURS: usize = 0;
    /// B lies likewise, and eight steps of it are transposed in registers while those before are used, and wait in a buffer: for tiles
    /// that leave no registers to keep them in. (The last vector ends with the last column, and there are eight steps.)
    const AHEAD: bool = false;
    /// Whether either is so.
    const IN_REGISTERS: bool = Self::FOURS > 0 || Self::AHEAD;
}

pub(super) struct Whole;
pub(super) struct Masked;
pub(super) struct Transposing;
pub(super) struct InRegisters<const FOURS: usize>;
pub(super) struct Ahead;

impl Reads for Whole {
    const WHOLE: bool = true;
}

impl Reads for Masked {}

impl Reads for Transposing {
    const TRANSPOSES: bool = true;
}

impl<const FOURS: usize> Reads for InRegisters<FOURS> {
    const WHOLE: bool = true;
    const FOURS: usize = FOURS;
}

impl Reads for Ahead {
    const WHOLE: bool = true;
    const AHEAD: bool = true;
}
