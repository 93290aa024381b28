//! What is predicted of products, to decide how many threads they are worth.

use crate::Isa;
use crate::kernels::{ALONE, predicted};
use crate::simd::Core;

const SIDES: [usize; 26] =
    [1, 2, 3, 5, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 47, 48, 49, 57, 64, 65, 72, 96, 128, 300, 1000, 4097];

/// Products that are computed before anybody asks how long they take are not worth a second thread; and others are not left alone
/// by a bound that is below what is predicted of them.
#[test]
fn nobody_is_left_alone_with_work_to_share() {
    let shapes =
        || SIDES.into_iter().flat_map(|m| SIDES.map(|n| (m, n))).flat_map(|(m, n)| SIDES.map(|k| (m, n, k)));
    for core in Core::ALL {
        for isa in Isa::available() {
            for (shape, by_columns) in shapes().flat_map(|shape| [(shape, false), (shape, true)]) {
                let (cycles, most, close) = core.pretend(|| predicted(isa, shape, by_columns));
                let what = format!("{shape:?}, B by columns: {by_columns}, {isa}, {core:?}: {cycles} cycles");
                assert!(!close || cycles < 1.05 * ALONE, "{what}");
                // What is narrow and moved may take longer than its bound, but not if it could be shared.
                let narrow = shape.0.min(shape.1) < 16;
                assert!(cycles <= most || (narrow && cycles < ALONE), "{what}, at most {most}");
            }
        }
    }
}
