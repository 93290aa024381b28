//! What a core is, beyond its instruction set: what decides which of several ways is the fastest. Never a bit of a result.

use std::sync::OnceLock;

/// A core as blocking and choice of kernels see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Core {
    /// What it is called in [`crate::BuildInfo`].
    pub name: &'static str,
    /// Values of `f32` of a product up to which its operands lie in L1 beside each other, so that nothing needs to be asked for.
    pub l1: usize,
    /// The same of a short product, some of whose operands come from L2.
    pub short: usize,
    /// Values of `f32` in its L2.
    pub l2: usize,
    /// Whether it shuffles whole vectors of 16 lanes as fast as half ones, so that half as many instructions do. (By measurement:
    /// Zen 5 four a cycle within quarters and two across them, Emerald Rapids one of whole vectors and two of half ones.)
    pub shuffles_whole: bool,
    /// Rows of B that are asked for before their step: 0 where the hardware foresees them.
    pub ahead: isize,
    /// Rows of A from which copying B into panels costs less than it saves, where rows of B lie less than a page apart (and three
    /// quarters of them where they are not whole lines).
    pub pack_rows: usize,
    /// Whether a block of A is copied where lines of one tile share a set of L1. 12 ways hold one for each row of a tile, and with two
    /// threads the copies cost 2 to 7 %; the Xeon, whose L1 has as many, has not been measured without them.
    pub copies_a: bool,
    /// Whether a set of L1 takes lines from L2 more slowly (one in 7 to 10 cycles, by measurement) than tiles of half vectors read them (6), so
    /// that rows a page apart are better copied, a line of which each step reads, and columns a page apart transposed by way of memory.
    pub slow_sets: bool,
    /// Rows of B of a page each that pass at once beside a few rows of A, at most. (By measurement; no reason is known why of two pages
    /// each all eight do best.)
    pub pages: usize,
    /// Whether rows that stream into a C beyond L3 wait for its lines, unless they are asked for by the rows before, and lose by asking
    /// for lines that are nearer. Others ask for each line just before it is written.
    pub asks_for_rows: bool,
}

/// Measured on Xeons (Emerald Rapids). What nobody has measured is taken for one of those.
const OTHER: Core = Core {
    name: "other",
    l1: Core::L1,
    short: Core::L1,
    l2: 2 << 18,
    shuffles_whole: false,
    ahead: 8,
    pack_rows: 384,
    copies_a: true,
    slow_sets: false,
    pages: 8,
    asks_for_rows: false,
};
/// Zen 4, with units of 256 bits beside an L1 of 32 KiB and an L2 of 1 MiB. Nothing else that is right for Zen 5 is for it, by measurement.
const ZEN4: Core = Core { name: "Zen 4", short: 32 << 10, l2: 1 << 18, slow_sets: true, pages: 4, ..OTHER };
/// Zen 5, with units of 512 bits beside an L1 of 48 KiB and an L2 of 1 MiB.
const ZEN5: Core = Core {
    name: "Zen 5",
    l1: 12 << 10,
    short: 32 << 10,
    l2: 1 << 18,
    shuffles_whole: true,
    ahead: 0,
    pack_rows: 800,
    copies_a: false,
    slow_sets: true,
    pages: 8,
    asks_for_rows: true,
};

impl Core {
    /// The least `l1` of all: there is no need to ask which core it is.
    pub(crate) const L1: usize = 6 << 10;

    /// Whether its L1 foresees what is read in order.
    #[inline(always)]
    pub(crate) fn foresees(&self) -> bool {
        self.ahead == 0
    }

    /// The one that this process runs on, detected once.
    #[inline(always)]
    pub(crate) fn current() -> &'static Core {
        #[cfg(test)]
        if let Some(core) = PRETENDED.get() {
            return core;
        }
        static DETECTED: OnceLock<Core> = OnceLock::new();
        DETECTED.get_or_init(detect)
    }
}

#[cfg(test)]
thread_local! {
    static PRETENDED: std::cell::Cell<Option<&'static Core>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
impl Core {
    /// All that there are.
    pub(crate) const ALL: [&Core; 3] = [&OTHER, &ZEN4, &ZEN5];

    /// Runs `f` as if this thread ran on such a core.
    pub(crate) fn pretend<R>(&'static self, f: impl FnOnce() -> R) -> R {
        struct Restore(Option<&'static Core>);
        impl Drop for Restore {
            fn drop(&mut self) {
                PRETENDED.set(self.0);
            }
        }
        let _restore = Restore(PRETENDED.replace(Some(self)));
        f()
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Core {
    use std::arch::x86_64::__cpuid;

    let vendor = __cpuid(0);
    let amd = [vendor.ebx, vendor.edx, vendor.ecx]
        == [b"Auth", b"enti", b"cAMD"].map(|text| u32::from_le_bytes(*text));
    let version = __cpuid(1).eax;
    // The extended family counts from 15 on.
    let family = (version >> 8 & 0xf) + (version >> 20 & 0xff);
    let core = match family {
        0x1a.. if amd => ZEN5,
        // Zen 3 is of the same family.
        0x19 if amd && is_x86_feature_detected!("avx512f") => ZEN4,
        _ => OTHER,
    };
    // In KiB, where the CPU tells.
    let l2 = if __cpuid(0x8000_0000).eax >= 0x8000_0006 { __cpuid(0x8000_0006).ecx >> 16 } else { 0 };
    if l2 > 0 { Core { l2: l2 as usize * 256, ..core } } else { core }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Core {
    OTHER
}
