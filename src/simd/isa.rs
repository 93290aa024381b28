//! Which instruction sets there are, which this CPU has, and which one is in use.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;

use super::{Body, Simd};
use crate::error::{Error, Result};

/// The list that drives detection, names, pinning, dispatch, tests and benches, best first. A new instruction set is
/// one file beside this one and one line here.
macro_rules! instruction_sets {
    ($($(#[$cfg:meta])* $variant:ident => $proof:ty;)+) => {
        /// One of the proofs: holding it means that the CPU has the instructions.
        #[derive(Clone, Copy)]
        enum Proof {
            $($(#[$cfg])* $variant($proof),)+
        }

        impl Isa {
            fn detect_all() -> Vec<Isa> {
                let mut found = Vec::new();
                $($(#[$cfg])* found.extend(<$proof>::detect().map(|proof| Isa(Proof::$variant(proof))));)+
                found
            }

            /// The name by which it is pinned: `"avx512"`, `"avx2"` or `"portable"`.
            pub fn name(self) -> &'static str {
                match self.0 {
                    $($(#[$cfg])* Proof::$variant(_) => <$proof>::NAME,)+
                }
            }

            /// Values of `f32` in one vector.
            pub fn lanes(self) -> usize {
                match self.0 {
                    $($(#[$cfg])* Proof::$variant(_) => <$proof>::LANES,)+
                }
            }

            /// Runs `body` compiled for this instruction set.
            #[inline(always)]
            pub(crate) fn dispatch<B: Body>(self, body: B) -> B::Out {
                match self.0 {
                    $($(#[$cfg])* Proof::$variant(proof) => proof.run(body),)+
                }
            }
        }
    };
}

instruction_sets! {
    #[cfg(target_arch = "x86_64")]
    Avx512 => super::avx512::Avx512;
    #[cfg(target_arch = "x86_64")]
    Avx2 => super::avx2::Avx2;
    Portable => super::portable::Portable;
    #[cfg(target_arch = "x86_64")]
    Software => super::portable::Software;
}

/// An instruction set that this CPU has: it can be listed, named and pinned. Results have the same bits on each.
///
/// ```
/// use percycle::Isa;
///
/// println!("running on {}", Isa::current().name());
/// for isa in Isa::available() {
///     isa.pin(|| assert_eq!(Isa::current(), isa));
/// }
/// assert!(Isa::by_name("mmx").is_err());
/// ```
#[derive(Clone, Copy)]
pub struct Isa(Proof);

thread_local! {
    static PINNED: Cell<Option<Isa>> = const { Cell::new(None) };
}

impl Isa {
    /// The body for CPUs without FMA, which a CPU that has it never chooses.
    #[cfg(all(test, target_arch = "x86_64"))]
    pub(crate) fn software() -> Isa {
        Isa(Proof::Software(super::portable::Software::anywhere()))
    }

    /// The instruction set that calls from this thread use: the one pinned by [`Isa::pin`], else the one named by the
    /// environment variable `PERCYCLE_ISA`, else the best that this CPU has.
    ///
    /// Detected once. A name in `PERCYCLE_ISA` that cannot be had is an error of every operation, and of
    /// [`Isa::try_current`]; this function then says the best, so that it can be printed.
    pub fn current() -> Isa {
        Isa::chosen().unwrap_or_else(Isa::best)
    }

    /// Like [`Isa::current`], with an error where `PERCYCLE_ISA` names an instruction set that cannot be had.
    ///
    /// # Errors
    /// [`Error::Isa`], naming what was asked for and what this CPU has.
    pub fn try_current() -> Result<Isa> {
        Isa::chosen().ok_or_else(|| unavailable(detected().1.as_ref().err().map_or("", String::as_str)))
    }

    /// The same without a word for who gets none.
    #[inline(always)]
    pub(crate) fn chosen() -> Option<Isa> {
        PINNED.get().or_else(|| detected().1.as_ref().ok().copied())
    }

    /// The best that this CPU has.
    pub(crate) fn best() -> Isa {
        detected().0[0]
    }

    /// All that this CPU has, best first. `portable` is always among them.
    pub fn available() -> impl ExactSizeIterator<Item = Isa> + DoubleEndedIterator {
        detected().0.iter().copied()
    }

    /// The instruction set of this name.
    ///
    /// # Errors
    /// [`Error::Isa`] when there is none of that name or this CPU lacks it.
    pub fn by_name(name: &str) -> Result<Isa> {
        Isa::available().find(|isa| isa.name() == name).ok_or_else(|| unavailable(name))
    }

    /// Runs `f` with this instruction set in use for every operation called from this thread, those that then work
    /// on other threads included.
    ///
    /// It is this thread that is pinned: with a rayon pool, pin inside of `pool.install(..)`, which runs its closure on another.
    pub fn pin<R>(self, f: impl FnOnce() -> R) -> R {
        struct Restore(Option<Isa>);
        impl Drop for Restore {
            fn drop(&mut self) {
                PINNED.set(self.0);
            }
        }
        let _restore = Restore(PINNED.replace(Some(self)));
        f()
    }
}

/// What this CPU has, and what `PERCYCLE_ISA` asked for: `Err` holds a name that cannot be had.
fn detected() -> &'static (Vec<Isa>, std::result::Result<Isa, String>) {
    static DETECTED: OnceLock<(Vec<Isa>, std::result::Result<Isa, String>)> = OnceLock::new();
    DETECTED.get_or_init(|| {
        let found = Isa::detect_all();
        let current = match std::env::var_os("PERCYCLE_ISA") {
            Some(name) if !name.is_empty() => {
                let name = name.to_string_lossy().into_owned();
                found.iter().copied().find(|isa| isa.name() == name).ok_or(name)
            }
            _ => Ok(found[0]),
        };
        (found, current)
    })
}

fn unavailable(requested: &str) -> Error {
    let names: Vec<_> = Isa::available().map(Isa::name).collect();
    Error::Isa { requested: requested.to_owned(), available: names.join(", ") }
}

impl PartialEq for Isa {
    fn eq(&self, other: &Isa) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Isa {}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Isa({})", self.name())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
