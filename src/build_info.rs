//! The facts that a benchmark figure or a bug report must state.

use std::fmt;

use crate::simd::{Core, Isa};

/// How this copy of percycle was built, and what it runs on: print it beside every figure.
///
/// ```
/// println!("{}", percycle::build_info());
/// assert!(percycle::build_info().rustc.starts_with("rustc"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildInfo {
    /// The version of percycle.
    pub version: &'static str,
    /// What `rustc --version` printed.
    pub rustc: &'static str,
    /// The target triple.
    pub target: &'static str,
    /// Cargo's profile: `release` or `debug`.
    pub profile: &'static str,
    /// The optimisation level.
    pub opt_level: &'static str,
    /// The target features that were on for the whole crate; the kernels bring their own.
    pub target_features: &'static str,
    /// The instruction sets that were compiled in, best first.
    pub compiled_isas: &'static str,
    /// The git revision, with `-dirty` when files differed from it; `None` outside a checkout.
    pub git: Option<&'static str>,
    /// The instruction set in use on this thread.
    pub isa: Isa,
    /// The kind of core this process runs on, where percycle knows it and takes other ways to the same bits there (`Zen 4`, `Zen 5`), or `other`.
    pub core: &'static str,
}

/// How this copy of percycle was built, and what it runs on.
pub fn build_info() -> BuildInfo {
    BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        rustc: env!("PERCYCLE_BUILD_RUSTC"),
        target: env!("PERCYCLE_BUILD_TARGET"),
        profile: env!("PERCYCLE_BUILD_PROFILE"),
        opt_level: env!("PERCYCLE_BUILD_OPT_LEVEL"),
        target_features: env!("PERCYCLE_BUILD_TARGET_FEATURES"),
        compiled_isas: env!("PERCYCLE_BUILD_ISAS"),
        git: Some(env!("PERCYCLE_BUILD_GIT")).filter(|revision| !revision.is_empty()),
        isa: Isa::current(),
        core: Core::current().name,
    }
}

impl fmt::Display for BuildInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "percycle {} ({}) on {}, {} (opt-level {}), {}; kernels {}, running {} (core: {})",
            self.version,
            self.git.unwrap_or("no git"),
            self.target,
            self.profile,
            self.opt_level,
            self.rustc,
            self.compiled_isas,
            self.isa,
            self.core,
        )
    }
}
