//! Chains of dependent instructions of known latency: what a core clock is measured with.
//!
//! Written in assembly, because a compiler would work such a chain out beforehand. Both operands are registers: newer
//! cores add small constants while renaming registers, in no time at all.

/// Instructions in a turn of the loop; the loop's own two run beside them.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const UNROLLED: u64 = 64;

/// The instruction of a chain.
#[derive(Clone, Copy)]
pub(crate) enum Link {
    /// An integer addition: 1 cycle on every core.
    Add,
    /// An integer multiplication of 64 bits: 3 cycles on x86 cores of the last decade.
    Multiply,
}

/// Runs a chain of about `steps` instructions and returns the cycles that it takes, or `None` where there is no such
/// chain.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
pub(crate) fn run(link: Link, steps: u64) -> Option<u64> {
    use std::arch::asm;

    let turns = (steps / UNROLLED).max(1);
    // SAFETY: registers only.
    unsafe {
        match link {
            Link::Add => asm!(
                "2:", ".rept 64", "add {x}, {y}", ".endr", "dec {n}", "jnz 2b",
                x = inout(reg) 1_u64 => _, y = in(reg) 3_u64, n = inout(reg) turns => _,
                options(nomem, nostack),
            ),
            Link::Multiply => asm!(
                "2:", ".rept 64", "imul {x}, {y}", ".endr", "dec {n}", "jnz 2b",
                x = inout(reg) 1_u64 => _, y = in(reg) 3_u64, n = inout(reg) turns => _,
                options(nomem, nostack),
            ),
        }
    }
    let latency = match link {
        Link::Add => 1,
        Link::Multiply => 3,
    };
    Some(turns * UNROLLED * latency)
}

/// As above. How long a multiplication takes differs among these cores.
#[cfg(target_arch = "aarch64")]
#[inline(never)]
pub(crate) fn run(link: Link, steps: u64) -> Option<u64> {
    use std::arch::asm;

    let turns = (steps / UNROLLED).max(1);
    match link {
        // SAFETY: registers only.
        Link::Add => unsafe {
            asm!(
                "2:", ".rept 64", "add {x}, {x}, {y}", ".endr", "subs {n}, {n}, #1", "b.ne 2b",
                x = inout(reg) 1_u64 => _, y = in(reg) 3_u64, n = inout(reg) turns => _,
                options(nomem, nostack),
            );
        },
        Link::Multiply => return None,
    }
    Some(turns * UNROLLED)
}

/// No chain is known here.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn run(_: Link, _: u64) -> Option<u64> {
    None
}
