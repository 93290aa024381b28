//! Every kind of core, whichever these tests run on.

use percycle_reference::product::{self as reference, Strided};

use super::{numbers, stored, stored_mut};
use crate::simd::Core;
use crate::{Activation, Isa, Matrix, Result, gemm, linear, matmul, profile};

/// Those values as the reference reads them.
fn strided(data: &[f32], rows: usize, cols: usize, by_columns: bool) -> Strided<'_> {
    let (row_stride, col_stride) = if by_columns { (1, rows) } else { (cols, 1) };
    Strided { data, rows, cols, row_stride, col_stride }
}

/// Products that some core computes in a way of its own: few rows beside columns that are transposed, or few columns beside
/// rows, also fewer of either than vectors hold; an A or a B that is copied or not, for how many rows there are or how they lie; a large C of few steps; and one or two rows beside a B beyond L1, of every number of steps that
/// are left of a piece.
#[test]
fn every_core_has_the_bits_of_the_loop() -> Result<()> {
    let mut shapes = vec![(390, 160, 40), (1500, 1400, 2), (20, 130, 512), (520, 130, 20), (1030, 130, 260)];
    shapes.extend([(14, 1024, 21), (1024, 129, 17), (33, 70, 5), (17, 131, 3), (40, 509, 8)]);
    shapes.extend((36..=41).map(|k| (1, 290, k)).chain([
        (1, 600, 14),
        (1, 4400, 9),
        (1, 150, 90),
        (2, 130, 100),
    ]));
    // Few rows beside a B whose rows lie whole pages apart, of every number of steps that are left.
    shapes.extend((9..=17).flat_map(|k| [(1, 1024, k), (3, 1024, k + 8)]));
    shapes.extend([(2, 1024, 30), (4, 1024, 600), (2, 2048, 137), (3, 4096, 25), (1, 4099, 25)]);
    // A row and two beside columns from beyond L2, whose lines are asked for.
    shapes.extend([(1, 283, 1001), (2, 283, 1001)]);
    // Short ones, a little larger than L1.
    shapes.extend([(130, 45, 40), (5, 200, 100), (48, 300, 24), (12, 31, 500), (95, 66, 47)]);
    // Of every number of steps that may be left of eight, and some that are done when the last eight begin.
    shapes.extend((7..=25).flat_map(|k| [(10, 35, k), (50, 11, k)]));
    // Few rows whose A is too large to be copied.
    shapes.extend((2..=8).flat_map(|few| [(few, 45, 1030), (45, few, 1030)]));
    for few in (1..=12).chain([17, 20, 22]) {
        for (many, k) in [(32, 24), (40, 33), (48, 31), (75, 100), (112, 7), (83, 512)] {
            shapes.extend([(few, many, k), (many, few, k)]);
        }
        for many in [9, 13, 17, 24, 31, 35] {
            shapes.extend([(few, many, 77), (many, few, 77)]);
        }
    }
    for (m, n, k) in shapes {
        let (a, b, before, bias) = (numbers(m * k), numbers(k * n), numbers(m * n), numbers(n));
        for layout in 0..8 {
            let [a_turned, b_turned, c_turned] = [1, 2, 4].map(|bit| layout & bit != 0);
            let views = (stored(&a, m, k, a_turned)?, stored(&b, k, n, b_turned)?);
            let mats = (strided(&a, m, k, a_turned), strided(&b, k, n, b_turned));
            let begun = reference::gemm(1.0, mats.0, mats.1, 1.0, strided(&before, m, n, c_turned));
            let relu = percycle_reference::activation::Activation::Relu;
            let layer = reference::linear(mats.0, mats.1, Some(&bias), relu);
            for core in Core::ALL {
                for isa in Isa::available() {
                    let check = |c: &[f32], want: &[f32]| {
                        let c = strided(c, m, n, c_turned);
                        let at = |i: usize| c.data[i / n * c.row_stride + i % n * c.col_stride];
                        let wrong = (0..m * n).find(|&i| at(i).to_bits() != want[i].to_bits());
                        assert_eq!(wrong, None, "{m}x{n}x{k}, layout {layout}, {isa}, {core:?}");
                    };
                    let run = || -> Result<()> {
                        let mut c = before.clone();
                        gemm(1.0, views.0, views.1, 1.0, stored_mut(&mut c, m, n, c_turned)?)?;
                        check(&c, &begun);
                        c.fill(f32::NAN);
                        let y = stored_mut(&mut c, m, n, c_turned)?;
                        linear(views.0, views.1, Some(&bias), Activation::Relu, y)?;
                        check(&c, &layer);
                        Ok(())
                    };
                    core.pretend(|| isa.pin(run))?;
                }
            }
        }
    }
    Ok(())
}

/// Few rows beside a B that lies by columns take two whole vectors of them where those are shuffled as fast, elsewhere a single row
/// four half ones, or three of a B from beyond L2, three rows three and others a vector; fewer where they lie whole pages apart, or where more than eight rows
/// have fewer than eight steps. The last of them need not be full.
#[test]
fn columns_are_taken_as_each_core_shuffles() {
    for (rows, n, k, other, whole) in [
        (1, 64, 784, 32, 32),
        (1, 400, 900, 24, 32),
        (2, 64, 784, 16, 32),
        (3, 64, 784, 24, 32),
        (3, 64, 512, 16, 16),
        (4, 64, 784, 16, 32),
        (8, 64, 784, 16, 32),
        (1, 64, 1024, 16, 16),
        (1, 20, 784, 24, 24),
        (1, 40, 784, 24, 48),
        (3, 40, 784, 24, 48),
        (1, 13, 784, 16, 16),
        (5, 20, 784, 16, 32),
        (9, 64, 784, 16, 32),
        (11, 40, 784, 16, 32),
        (10, 64, 1024, 16, 16),
        (10, 64, 7, 16, 16),
        (10, 16, 784, 16, 16),
        (12, 64, 784, 16, 16),
    ] {
        let (a, b, mut c) = (Matrix::zeros(rows, k), Matrix::zeros(n, k), Matrix::zeros(rows, n));
        for (core, cols) in Core::ALL.into_iter().zip([other, other, whole]) {
            for isa in Isa::available().filter(|isa| isa.lanes() == 16 || (rows == 1 && isa.lanes() > 1)) {
                // No core takes whole vectors of fewer lanes in another way.
                let cols = if isa.lanes() == 16 { cols } else { other };
                let product = || matmul(a.view(), b.view().t(), c.view_mut());
                let kernel = core.pretend(|| isa.pin(|| profile::kernel_of(product).1)).unwrap();
                assert_eq!(
                    kernel.to_string(),
                    format!("{isa} {rows}x{cols}"),
                    "{n} columns, {k} steps, {core:?}"
                );
            }
        }
    }
}

/// More rows than a kernel that transposes has pass such a B in two halves.
#[test]
fn rows_pass_columns_in_halves() {
    for (rows, halves) in [(17, "9x32"), (20, "10x32"), (22, "11x32")] {
        let (a, b, mut c) = (Matrix::zeros(rows, 784), Matrix::zeros(600, 784), Matrix::zeros(rows, 600));
        for isa in Isa::available().filter(|isa| isa.lanes() == 16) {
            let product = || matmul(a.view(), b.view().t(), c.view_mut());
            let whole = Core::ALL.into_iter().find(|core| core.shuffles_whole).expect("there is one");
            let kernel = whole.pretend(|| isa.pin(|| profile::kernel_of(product).1)).unwrap();
            assert_eq!(kernel.to_string(), format!("{isa} {halves}"), "{rows} rows");
        }
    }
}

/// A single row beside a B beyond L1 takes pieces of 1 KiB of each row where the core foresees them; and of rows that are shorter it is
/// tiles there that read them almost in order.
#[test]
fn rows_come_as_each_core_foresees() {
    for (rows, n, k, other, foreseen) in
        [(1, 784, 64, 16, 256), (1, 240, 64, 16, 16), (1, 128, 784, 16, 128), (2, 192, 100, 16, 128)]
    {
        let (a, b, mut c) = (Matrix::zeros(rows, k), Matrix::zeros(k, n), Matrix::zeros(rows, n));
        for (core, cols) in Core::ALL.into_iter().zip([other, other, foreseen]) {
            for isa in Isa::available().filter(|isa| isa.lanes() == 16) {
                let product = || matmul(a.view(), b.view(), c.view_mut());
                let kernel = core.pretend(|| isa.pin(|| profile::kernel_of(product).1)).unwrap();
                assert_eq!(kernel.to_string(), format!("{isa} {rows}x{cols}"), "{n} columns, {core:?}");
            }
        }
    }
}

#[test]
fn build_info_tells_the_kind_of_core() {
    for core in Core::ALL {
        let told = core.pretend(crate::build_info);
        assert_eq!(told.core, core.name);
        assert!(told.to_string().ends_with(&format!("(core: {})", core.name)), "{told}");
    }
}
