//! Tests of what cannot be asked for from outside.

#[cfg(target_arch = "x86_64")]
mod software;
#[cfg(feature = "rayon")]
mod threads;
