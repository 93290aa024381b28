//! What a figure must state about the machine it was measured on.

use percycle::{Isa, build_info, fma_peak};

/// Prints how percycle was built, the CPU and the FMA peak of each instruction set.
pub fn print_facts(threads: usize) {
    println!("{}", build_info());
    println!("CPU: {}; {threads} thread(s)", cpu().unwrap_or_else(|| "unknown".into()));
    for isa in Isa::available() {
        let peak = crate::median((0..31).map(|_| fma_peak(isa)));
        println!("FMA peak of one core, {isa}: {:.1} GFLOP/s (median of 31)", peak / 1e9);
    }
}

/// The model as Linux names it.
fn cpu() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
