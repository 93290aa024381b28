//! Profiles: their parts meet the time that passed, their counts those made by hand, their clock a second method; and
//! what cannot be known is not stated.

mod common;

use std::time::Instant;

use common::{Numbers, alone, same};
use percycle::profile::{Bound, Clock, Entry, Kernel, Machine, Phase, Report, kernel_of, record};
use percycle::{
    Activation, Adam, Isa, Loss, Matrix, Mlp, Optimizer, PackedWeights, Result, Sgd, Targets, Trainer,
    linear, linear_packed, matmul,
};

/// A network, a batch, and what to train it with.
struct Case {
    trainer: Trainer,
    x: Matrix,
    y: Matrix,
}

impl Case {
    fn new(
        sizes: &[usize],
        hidden: Activation,
        last: Activation,
        batch: usize,
        optimizer: Optimizer,
    ) -> Case {
        let (outputs, mut numbers) = (sizes[sizes.len() - 1], Numbers::new(5));
        let inner = &sizes[1..sizes.len() - 1];
        let mlp = inner.iter().fold(Mlp::builder(sizes[0]), |mlp, &units| mlp.layer(units, hidden));
        let mlp = mlp.layer(outputs, last).seed(1).build().unwrap();
        let mut matrix = |rows: usize, cols: usize| {
            Matrix::from_vec(rows, cols, (0..rows * cols).map(|_| numbers.next()).collect()).unwrap()
        };
        let (x, y) = (matrix(batch, sizes[0]), matrix(batch, outputs));
        Case { trainer: Trainer::new(mlp, Loss::Mse, optimizer).unwrap(), x, y }
    }

    /// 784-512-256-10 with a batch of 64.
    fn large() -> Case {
        let sizes = [784, 512, 256, 10];
        Case::new(&sizes, Activation::Relu, Activation::Identity, 64, Sgd::new(1e-6).into())
    }

    fn step(&mut self) -> Result<f32> {
        self.trainer.step(self.x.view(), Targets::Values(self.y.view()))
    }

    fn profile(&mut self, steps: usize) -> Report {
        let (result, report) = record(|| (0..steps).try_for_each(|_| self.step().map(drop)));
        result.unwrap();
        report
    }
}

fn find(entries: &[Entry], layer: Option<usize>, phase: Phase) -> &Entry {
    entries.iter().find(|entry| (entry.layer, entry.phase) == (layer, phase)).expect("the phase ran")
}

/// Whatever is timed can be interrupted on a machine with other work: one of several attempts must be right. What is
/// wrong in the code is wrong in all of them.
fn in_one_of_several(what: &str, mut attempt: impl FnMut() -> std::result::Result<(), String>) {
    let mut last = String::new();
    for _ in 0..10 {
        match attempt() {
            Ok(()) => return,
            Err(why) => last = why,
        }
    }
    panic!("{what}: {last}");
}

#[test]
fn the_parts_meet_the_time_that_passed() {
    let mut case = Case::large();
    case.step().unwrap();
    in_one_of_several("784-512-256-10", || {
        let mut passed = 0.0;
        let (result, report) = record(|| {
            let start = Instant::now();
            let result = (0..5).try_for_each(|_| case.step().map(drop));
            passed = start.elapsed().as_secs_f64();
            result
        });
        result.unwrap();
        let entries = report.entries();
        let seconds = |entry: &Entry| entry.seconds * entry.calls as f64;
        let all: f64 = entries.iter().map(seconds).sum();
        let other = seconds(find(&entries, None, Phase::Other));
        let shares: f64 = entries.iter().map(|entry| entry.share).sum();
        assert!((shares - 1.0).abs() < 1e-6, "the shares sum to {shares}");
        if (all / passed - 1.0).abs() > 0.03 {
            return Err(format!("the parts take {all} s of {passed} s"));
        }
        if other / passed > 0.03 {
            return Err(format!("{other} s of {passed} s belong to no phase"));
        }
        Ok(())
    });
}

/// FLOP and bytes of (layer, phase) pairs, counted by hand: each operand read once, each result written once.
fn assert_counts(case: &mut Case, expected: &[(usize, Phase, f64, f64)]) {
    let entries = case.profile(3).entries();
    for &(layer, phase, flop, bytes) in expected {
        let entry = find(&entries, Some(layer), phase);
        assert_eq!((entry.flop, entry.bytes), (flop, bytes), "layer {layer}, {phase}");
        assert_eq!(entry.calls, 3, "layer {layer}, {phase}");
    }
    assert_eq!(entries.iter().filter(|entry| entry.layer.is_some()).count(), expected.len());
}

#[test]
fn counts_of_2_3_1_are_those_made_by_hand() {
    let mut case = Case::new(&[2, 3, 1], Activation::Relu, Activation::Identity, 2, Sgd::new(0.1).into());
    let expected = [
        // x 4, W 6, b 3, y 6 values of 4 bytes.
        (0, Phase::Forward, 24.0, 76.0),
        // x 4, delta 6; W and b, 9, read and written.
        (0, Phase::Descend, 24.0, 112.0),
        // x 6, W 3, b 1, y 2.
        (1, Phase::Forward, 12.0, 48.0),
        // delta 2, W 3, y of the layer below 6, its delta 6.
        (1, Phase::Delta, 12.0, 68.0),
        // x 6, delta 2; 4 parameters read and written.
        (1, Phase::Descend, 12.0, 64.0),
    ];
    assert_counts(&mut case, &expected);
    let entries = case.profile(1).entries();
    // Outputs 2 and targets 2 read, derivatives 2 and terms 2 written; then nothing for the identity's derivative.
    assert_eq!(find(&entries, None, Phase::Loss).bytes * 2.0, 32.0);
}

#[test]
fn counts_of_64_32_10_with_adam_are_those_made_by_hand() {
    let mut case =
        Case::new(&[64, 32, 10], Activation::Relu, Activation::Identity, 32, Adam::new(0.01).into());
    let expected = [
        // x 2048, W 2048, b 32, y 1024.
        (0, Phase::Forward, 131_072.0, 20_608.0),
        // x 2048, delta 1024; 2080 parameters with two values each of state, read and written.
        (0, Phase::Descend, 131_072.0, 62_208.0),
        // x 1024, W 320, b 10, y 320.
        (1, Phase::Forward, 20_480.0, 6_696.0),
        // delta 320, W 320, y below 1024, its delta 1024.
        (1, Phase::Delta, 20_480.0, 10_752.0),
        // x 1024, delta 320; 330 parameters, three values each, read and written.
        (1, Phase::Descend, 20_480.0, 13_296.0),
    ];
    assert_counts(&mut case, &expected);
}

#[test]
fn counts_of_5_4_2_with_momentum_are_those_made_by_hand() {
    let optimizer = Sgd::new(0.1).momentum(0.9).into();
    let mut case = Case::new(&[5, 4, 2], Activation::Identity, Activation::Gelu, 3, optimizer);
    let expected = [
        // x 15, W 20, b 4, y 12.
        (0, Phase::Forward, 120.0, 204.0),
        // x 15, delta 12; 24 parameters with a velocity each, read and written.
        (0, Phase::Descend, 120.0, 492.0),
        // x 12, W 8, b 2, y 6, and 6 before the activation, kept for its derivative.
        (1, Phase::Forward, 48.0, 136.0),
        // delta 6, W 8, delta below 12; the identity below has no derivative to read.
        (1, Phase::Delta, 48.0, 104.0),
        // x 12, delta 6; 10 parameters with a velocity each, read and written.
        (1, Phase::Descend, 48.0, 232.0),
    ];
    assert_counts(&mut case, &expected);
}

#[test]
fn stored_gradients_have_phases_of_their_own() {
    let mut case = Case::new(&[5, 4, 2], Activation::Relu, Activation::Identity, 3, Sgd::new(0.1).into());
    let (result, report) = record(|| -> Result<()> {
        for _ in 0..2 {
            case.trainer.accumulate(case.x.view(), Targets::Values(case.y.view()))?;
        }
        case.trainer.apply()
    });
    result.unwrap();
    assert_eq!(report.calls, 3);
    let entries = report.entries();
    // x 15, delta 12; 24 gradients written the first time, read and written the second: the mean of 204 and 300.
    assert_eq!(find(&entries, Some(0), Phase::Gradient).bytes, 252.0);
    // 34 gradients read, 34 parameters read and written.
    assert_eq!(find(&entries, None, Phase::Update).bytes, 408.0);
    assert!(!entries.iter().any(|entry| entry.phase == Phase::Descend));
}

#[test]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn the_clock_meets_a_second_method() {
    in_one_of_several("the clock", || {
        let Some(clock) = Clock::measure() else {
            return Err("the two methods contradict each other".into());
        };
        assert!((2e8..2e10).contains(&clock.hertz), "{clock}");
        match clock.second_hertz {
            Some(second) if (second / clock.hertz - 1.0).abs() > 0.02 => Err(clock.to_string()),
            _ => Ok(()),
        }
    });
}

/// Where the system counts no cycles in the kernel, the counter of a run that was mostly there would be far too low.
#[test]
#[cfg(all(feature = "perf-counters", target_os = "linux"))]
fn time_in_the_kernel_does_not_slow_the_clock() {
    use std::io::Read;

    let clock_of = |work: &mut dyn FnMut()| {
        let run = || {
            let start = Instant::now();
            while start.elapsed().as_secs_f64() < 0.7 {
                work();
            }
        };
        Clock::during(run).1
    };
    in_one_of_several("the clock", || {
        let (mut zero, mut bytes) = (std::fs::File::open("/dev/zero").unwrap(), vec![0; 1 << 20]);
        let inside = clock_of(&mut || zero.read_exact(&mut bytes).unwrap());
        let outside = clock_of(&mut || bytes.fill(std::hint::black_box(1)));
        match inside.zip(outside) {
            // A counter and additions may differ: an emulator's additions do not keep to its clock.
            Some((inside, outside)) if inside.source == outside.source => {
                let close = (inside.hertz / outside.hertz - 1.0).abs() < 0.2;
                if close { Ok(()) } else { Err(format!("{inside} in the kernel, {outside} outside of it")) }
            }
            _ => Ok(()),
        }
    });
}

#[test]
fn nothing_recorded_is_a_report_without_lines() {
    let (_, report) = record(|| ());
    assert_eq!((report.calls, report.seconds, report.footprint), (0, 0.0, 0));
    assert!(report.entries().is_empty());
    assert!(report.to_string().starts_with("calls   0\n"), "{report}");
    check_json(&report);
}

#[test]
fn one_prediction_is_a_line_for_each_layer() {
    let case = Case::large();
    let (result, report) = record(|| case.trainer.model().predict(case.x.view()));
    result.unwrap();
    assert_eq!(report.calls, 1);
    let phases: Vec<_> = report.entries().iter().map(|entry| (entry.layer, entry.phase)).collect();
    let forward = |layer| (Some(layer), Phase::Forward);
    assert_eq!(phases, [forward(0), forward(1), forward(2), (None, Phase::Other)]);
    check_json(&report);
}

#[test]
fn an_empty_batch_has_no_work() {
    let mut case = Case::large();
    let (x, y) = (Matrix::zeros(0, 784), Matrix::zeros(0, 10));
    let (result, report) = record(|| case.trainer.model().predict(x.view()));
    assert_eq!(result.unwrap().rows(), 0);
    assert_eq!(find(&report.entries(), Some(0), Phase::Forward).flop, 0.0);
    check_json(&report);
    let (result, report) = record(|| case.trainer.step(x.view(), Targets::Values(y.view())));
    result.unwrap_err();
    assert_eq!(report.calls, 1);
    assert!(report.entries().iter().all(|entry| entry.phase == Phase::Other), "{report}");
    check_json(&report);
}

#[test]
fn an_unknown_machine_has_no_cycles_and_no_shares_of_it() {
    let mut report = Case::large().profile(2);
    report.machine = Machine::unknown();
    for entry in report.entries() {
        assert_eq!((entry.cycles, entry.flop_per_cycle), (None, None));
        assert_eq!((entry.peak_share, entry.bandwidth_share, entry.bound), (None, None, None));
    }
    let text = report.to_string();
    assert_eq!(text.matches("unknown").count(), 3, "{text}");
    // The only percentage of a line is its share of the step.
    assert!(text.lines().filter(|line| line.starts_with("  ")).all(|line| line.matches('%').count() == 1));
    check_json(&report);
}

#[test]
fn a_known_machine_says_what_bounds() {
    let report = Case::large().profile(2);
    let entries = report.entries();
    let forward = find(&entries, Some(0), Phase::Forward);
    if report.machine.clock.is_some() {
        assert!(forward.cycles.unwrap() > 0.0);
    }
    let share = forward.peak_share.expect("the peak was measured");
    assert!((0.0..1.5).contains(&share), "{report}");
    if share >= 0.5 {
        assert_eq!(forward.bound, Some(Bound::Compute), "{report}");
    }
    for line in report.to_string().lines() {
        assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
    }
}

#[test]
fn two_instruction_sets_explain_themselves() {
    let mut case = Case::new(&[40, 30, 20], Activation::Relu, Activation::Identity, 16, Sgd::new(0.1).into());
    let isas: Vec<Isa> = Isa::available().collect();
    let (result, report) = record(|| isas.iter().try_for_each(|isa| isa.pin(|| case.step().map(drop))));
    result.unwrap();
    let (entries, text) = (report.entries(), report.to_string());
    for isa in isas {
        let of_isa = || entries.iter().filter(|entry| entry.isa == Some(isa.name()));
        assert_eq!(of_isa().count(), 5, "{isa}: {text}");
        assert!(of_isa().all(|entry| entry.calls == 1 && entry.peak_share.is_some()));
        let kernel = of_isa().next().unwrap().kernel.clone().unwrap();
        assert!(kernel.starts_with(isa.name()) && text.contains(&kernel), "{text}");
        assert!(text.contains(&format!("peak    {isa} of one core")), "{text}");
    }
    check_json(&report);
}

/// A batch that leaves more than a cache holds goes through the layers in parts; one that leaves less as a whole.
#[test]
fn large_batches_go_in_parts() {
    for (batch, parts, last) in [(512, 1, Phase::Descend), (1200, 4, Phase::Gradient)] {
        let mut case = Case::new(
            &[128, 64, 64, 64],
            Activation::Relu,
            Activation::Identity,
            batch,
            Sgd::new(0.1).into(),
        );
        let entries = alone(move || case.profile(1).entries());
        for phase in [Phase::Forward, last] {
            let entry = find(&entries, Some(0), phase);
            let flop = (2 * 128 * 64 * batch / parts) as f64;
            assert_eq!((entry.calls, entry.flop), (parts as u64, flop), "{batch} samples, {phase}");
        }
    }
}

/// Whole vectors of a single column would be nearly empty: of more rows than half a vector has they are turned, though all of C were one tile.
#[test]
fn a_single_column_is_turned() {
    for (rows, shape) in [(8, "8x16"), (12, "1x16t"), (16, "1x16t"), (24, "1x24t")] {
        let (a, b, mut c) = (Matrix::zeros(rows, 32), Matrix::zeros(32, 1), Matrix::zeros(rows, 1));
        for isa in Isa::available().filter(|isa| isa.lanes() == 16) {
            let kernel = kernel(isa, || matmul(a.view(), b.view(), c.view_mut()).unwrap());
            assert_eq!(kernel.to_string(), format!("{isa} {shape}"), "{rows} rows");
        }
    }
}

/// The kernel of a product on one thread: parts for several may have another.
fn kernel(isa: Isa, product: impl FnOnce() + Send) -> Kernel {
    alone(|| kernel_of(|| isa.pin(product)).1).unwrap()
}

#[test]
fn a_tiny_product_goes_row_by_row() {
    let (a, b, mut c) = (Matrix::zeros(2, 3), Matrix::zeros(3, 2), Matrix::zeros(2, 2));
    for isa in Isa::available() {
        let kernel = kernel(isa, || matmul(a.view(), b.view(), c.view_mut()).unwrap());
        assert_eq!(kernel.to_string(), format!("{isa} 1x{}", isa.lanes().min(8)));
    }
}

/// Columns beyond the last whole vector that are a product of their own are no part of the larger one's tile.
#[test]
fn last_columns_are_not_in_the_tile() {
    for (m, k, shape) in [(6, 2000, "6x32"), (33, 33, "11x32")] {
        let (a, b, mut c) = (Matrix::zeros(m, k), Matrix::zeros(k, 33), Matrix::zeros(m, 33));
        for isa in Isa::available().filter(|isa| isa.lanes() == 16) {
            let kernel = kernel(isa, || matmul(a.view(), b.view(), c.view_mut()).unwrap());
            assert_eq!(kernel.to_string(), format!("{isa} {shape}"), "{m} rows, {k} steps");
        }
    }
}

/// Three vectors where B is read in place, two where it is packed; with AVX-512 low tiles for few steps, unless many columns
/// are left over.
#[test]
fn tiles_by_how_b_lies() {
    for (m, n, k, avx512, avx2) in [
        (64, 144, 40, (8, 48), (6, 16)),
        (8, 144, 40, (8, 48), (4, 24)),
        (12, 144, 40, (12, 32), (6, 16)),
        (6, 144, 40, (6, 64), (6, 16)),
        (64, 144, 4, (3, 128), (6, 16)),
        (64, 144, 5, (8, 48), (6, 16)),
        (64, 200, 4, (8, 48), (6, 16)),
    ] {
        let (a, b, mut c) = (Matrix::zeros(m, k), Matrix::zeros(k, n), Matrix::zeros(m, n));
        for isa in Isa::available() {
            let (rows, cols) = if isa.lanes() == 16 { avx512 } else { avx2 };
            // With an activation, without which few steps stream.
            let mut product = || linear(a.view(), b.view(), None, Activation::Relu, c.view_mut()).unwrap();
            let kernel = kernel(isa, &mut product);
            assert_eq!(kernel.to_string(), format!("{isa} {rows}x{cols}"), "{m}x{n}x{k}");
        }
    }
    // By columns: copied by rows where it is small, else by panels.
    for (k, avx512, avx2) in [(40, "8x48", "6x16"), (60, "8x48", "6x16"), (90, "12x32", "6x16")] {
        let (a, b, mut c) = (Matrix::zeros(24, k), Matrix::zeros(48, k), Matrix::zeros(24, 48));
        for isa in Isa::available() {
            let tile = if isa.lanes() == 16 { avx512 } else { avx2 };
            let kernel = kernel(isa, || matmul(a.view(), b.view().t(), c.view_mut()).unwrap());
            assert_eq!(kernel.to_string(), format!("{isa} {tile}"), "{k} steps");
        }
    }
    let (x, w, mut y) = (Matrix::zeros(60, 40), Matrix::zeros(40, 144), Matrix::zeros(60, 144));
    let w = PackedWeights::new(w.view());
    for isa in Isa::available() {
        let mut product = || linear_packed(x.view(), &w, None, Activation::Identity, y.view_mut()).unwrap();
        let kernel = kernel(isa, &mut product);
        let tile = if isa.lanes() == 16 { "12x32" } else { "6x16" };
        assert_eq!(kernel.to_string(), format!("{isa} {tile}"));
    }
}

/// Two rows beside a B beyond L1, few beside one beyond L2, and few steps into long rows of C: rows of C at once, a vector of
/// each. With AVX-512 few steps go into pairs of rows. How long rows must be grows with the steps.
#[test]
fn long_rows_stream() {
    let few_rows =
        [((2, 512, 64), 2, 2), ((3, 512, 64), 0, 0), ((2, 100, 512), 0, 0), ((3, 512, 1100), 3, 3)];
    let few_steps = [
        ((16, 64, 1), 1, 1),
        ((16, 63, 1), 0, 1),
        ((16, 31, 1), 0, 0),
        ((16, 64, 4), 0, 1),
        ((16, 128, 5), 2, 1),
        ((16, 127, 5), 0, 1),
        ((16, 127, 8), 0, 0),
        ((16, 512, 9), 0, 0),
    ];
    for ((m, n, k), avx512, others) in few_rows.into_iter().chain(few_steps) {
        let (a, b, mut c) = (Matrix::zeros(m, k), Matrix::zeros(k, n), Matrix::zeros(m, n));
        for isa in Isa::available() {
            let kernel = kernel(isa, || matmul(a.view(), b.view(), c.view_mut()).unwrap());
            let rows = if isa.lanes() == 16 { avx512 } else { others };
            let streams = (kernel.rows, kernel.cols) == (rows, isa.lanes());
            assert_eq!(streams, rows > 0, "{m}x{n}x{k} {kernel}");
        }
    }
}

/// So do the plain updates of few samples, whose rows of weights may be shorter: with AVX-512 from 128 on.
#[test]
fn updates_of_few_samples_stream() {
    for (samples, outputs, avx512, others) in
        [(1, 128, 1, 1), (4, 128, 2, 1), (8, 130, 2, 1), (9, 130, 0, 0), (2, 127, 0, 1)]
    {
        for isa in Isa::available() {
            let mut case = Case::new(
                &[60, outputs, 3],
                Activation::Relu,
                Activation::Identity,
                samples,
                Sgd::new(0.1).into(),
            );
            let report = alone(|| isa.pin(|| record(|| case.step().map(drop)).1));
            let is_update = |entry: &Entry| entry.phase == Phase::Descend && entry.layer == Some(0);
            let kernel = report.entries().into_iter().find(is_update).and_then(|entry| entry.kernel).unwrap();
            let rows = if isa.lanes() == 16 { avx512 } else { others };
            let streams = kernel == format!("{isa} {rows}x{}", isa.lanes());
            assert_eq!(streams, rows > 0, "{samples} samples, {outputs} outputs: {kernel}");
        }
    }
}

#[test]
fn watching_changes_no_bit() {
    let (mut watched, mut alone) = (Case::large(), Case::large());
    watched.profile(3);
    for _ in 0..3 {
        alone.step().unwrap();
    }
    for (a, b) in watched.trainer.model().layers().iter().zip(alone.trainer.model().layers()) {
        let (a, b) = (a.weight(), b.weight());
        assert!(a.as_slice().iter().zip(b.as_slice()).all(|(&a, &b)| same(a, b)));
    }
}

/// Watched, a step takes two readings of the clock for each phase more, and what recording does with them. The latter is
/// measured where it can be: on a network as deep whose products take no time. The readings cost what the system asks for
/// them, 24 ns or a system call, and caches that the products of the large network have emptied of the recorder cost as well;
/// a machine's other tenants empty them too, so that here the large step itself is held to a coarse bound. To a hundredth it
/// is held by the guard (`benches/guard.rs`), which is optimized, and knows when the machine is not quiet.
#[test]
fn recording_costs_little() {
    const STEPS: usize = 10;
    /// Seconds of a step, watched and not, in turns: a clock that drifts falls on both alike.
    fn seconds(case: &mut Case, rounds: usize, repeats: usize) -> (f64, f64) {
        let mut steps = || {
            let start = Instant::now();
            for _ in 0..STEPS * repeats {
                case.step().unwrap();
            }
            start.elapsed().as_secs_f64() / (STEPS * repeats) as f64
        };
        let (on, off): (Vec<f64>, Vec<f64>) = (0..rounds).map(|_| (kernel_of(&mut steps).0, steps())).unzip();
        (lower_quartile(on), lower_quartile(off))
    }
    alone(|| {
        let relu_then_none = |sizes: &[usize]| {
            Case::new(sizes, Activation::Relu, Activation::Identity, 2, Sgd::new(1e-6).into())
        };
        let (mut large, mut small) = (Case::large(), relu_then_none(&[2, 3, 3, 1]));
        let phases = |case: &mut Case| case.profile(1).rows.len();
        assert_eq!(phases(&mut large), phases(&mut small));
        let readings = 2 * (1 + phases(&mut small)) as u32;
        in_one_of_several("784-512-256-10", || {
            let (small_on, small_off) = seconds(&mut small, 40, 10);
            let (large_on, large_off) = seconds(&mut large, 20, 1);
            let start = Instant::now();
            for _ in 0..100 * readings {
                std::hint::black_box(Instant::now());
            }
            let reading = start.elapsed().as_secs_f64() / 100.0 / large_off;
            let recording = (small_on - small_off) / large_off - reading;
            let all = large_on / large_off - 1.0;
            let costs = format!(
                "a step takes {:.1} us; reading the clock {:.3} %, recording {:+.3} %, in all {:+.2} %",
                large_off * 1e6,
                reading * 1e2,
                recording * 1e2,
                all * 1e2
            );
            println!("{costs}");
            if recording > 0.003 || all > 0.03 { Err(costs) } else { Ok(()) }
        });
    });
}

/// Of times. Other work on the machine interrupts many of them, but hardly three quarters.
fn lower_quartile(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 4]
}

#[test]
fn a_recording_sees_its_own_calls_only() {
    let case = || Case::new(&[5, 4, 2], Activation::Relu, Activation::Identity, 3, Sgd::new(0.1).into());
    let (mut case, mut elsewhere) = (case(), case());
    case.step().unwrap();
    let (inner, report) = record(|| {
        case.step().unwrap();
        // The outer recording goes on after one inside of it, even one that panics.
        assert!(std::panic::catch_unwind(|| record(|| assert_eq!(1, 2, "on purpose"))).is_err());
        let (_, inner) = record(|| (0..5).map(|_| case.step().unwrap()).sum::<f32>());
        std::thread::scope(|scope| scope.spawn(|| elsewhere.step().unwrap()).join().unwrap());
        case.step().unwrap();
        inner
    });
    assert_eq!((report.calls, inner.calls), (2, 5));
}

/// The document that a report serialises to is what the schema says.
fn check_json(report: &Report) {
    if let Err(why) = validate(&serde_json::to_value(report).unwrap()) {
        panic!("{why}\n{}", serde_json::to_string_pretty(report).unwrap());
    }
}

fn validate(document: &serde_json::Value) -> std::result::Result<(), String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/profile.schema.json");
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    let schema = compiler.compile(path, &mut schemas).unwrap();
    schemas.validate(document, schema).map_err(|error| error.to_string())
}

#[test]
fn json_and_csv_are_what_is_documented() {
    let report = Case::large().profile(2);
    check_json(&report);
    // The schema refuses what is not one.
    let good = serde_json::to_value(&report).unwrap();
    let wrong: [fn(&mut serde_json::Value); 4] = [
        |json| json["calls"] = (-1).into(),
        |json| json["entries"][0]["phase"] = "sideways".into(),
        |json| json["entries"][0]["unheard_of"] = 1.into(),
        |json| drop(json.as_object_mut().unwrap().remove("machine")),
    ];
    for spoil in wrong {
        let mut json = good.clone();
        spoil(&mut json);
        assert!(validate(&json).is_err(), "{json}");
    }

    let mut csv = csv::Writer::from_writer(Vec::new());
    for entry in report.entries() {
        csv.serialize(entry).unwrap();
    }
    let text = String::from_utf8(csv.into_inner().unwrap()).unwrap();
    assert!(
        text.starts_with("layer,inputs,outputs,phase,isa,kernel,threads,calls,seconds,cycles,"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1 + report.entries().len());
}
