//! Views accept exactly the shapes and strides that a naive model accepts, and show the elements that index arithmetic
//! names.

use std::collections::HashSet;

use percycle::{Error, MatMut, MatRef, Matrix};
use proptest::prelude::*;

/// Rows, columns, row stride, column stride.
type Shape = (usize, usize, usize, usize);

/// What the model says of a view.
#[derive(Debug, PartialEq)]
enum Verdict {
    Fine,
    Length,
    TooLarge,
    Overlap,
}

/// The model: in numbers that cannot overflow, and by listing every place.
fn model(len: usize, (rows, cols, row_stride, col_stride): Shape, writable: bool) -> Verdict {
    let [rows, cols, row_stride, col_stride] = [rows, cols, row_stride, col_stride].map(|x| x as u128);
    if rows * cols > usize::MAX as u128 {
        return Verdict::TooLarge;
    }
    if rows * cols == 0 {
        return Verdict::Fine;
    }
    // The strides may be as large as the dimensions: divide instead of multiplying.
    let most = isize::MAX as u128 / size_of::<f32>() as u128 - 1;
    let reach = |count: u128, stride: u128| {
        if count > 1 && stride > most / (count - 1) { most + 1 } else { (count - 1) * stride }
    };
    let last = reach(rows, row_stride) + reach(cols, col_stride);
    if last > most {
        Verdict::TooLarge
    } else if last >= len as u128 {
        Verdict::Length
    } else if !writable {
        Verdict::Fine
    } else {
        // More elements than places cannot all have one of their own, and need not be listed.
        let mut places = HashSet::new();
        let own = |(i, j)| places.insert(i * row_stride + j * col_stride);
        let all = (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j)));
        if rows * cols <= len as u128 && all.clone().all(own) { Verdict::Fine } else { Verdict::Overlap }
    }
}

fn verdict<T>(result: Result<T, Error>) -> Verdict {
    match result {
        Ok(_) => Verdict::Fine,
        Err(Error::Length { .. }) => Verdict::Length,
        Err(Error::TooLarge { .. }) => Verdict::TooLarge,
        Err(Error::Overlap { .. }) => Verdict::Overlap,
        Err(other) => panic!("not an error of views: {other}"),
    }
}

fn accepted_as_the_model_says(shape: Shape, len: usize) {
    let (rows, cols, row_stride, col_stride) = shape;
    let mut data = data(len);
    let view = MatRef::strided(&data, rows, cols, row_stride, col_stride);
    assert_eq!(verdict(view), model(len, shape, false));
    let view = MatMut::strided(&mut data, rows, cols, row_stride, col_stride);
    assert_eq!(verdict(view), model(len, shape, true));
}

/// Element i holds i.
fn data(len: usize) -> Vec<f32> {
    (0..len).map(|i| i as f32).collect()
}

/// Shapes that fit small slices about half of the time, zeros among them.
fn small() -> impl Strategy<Value = Shape> {
    (0..9usize, 0..9usize, 0..20usize, 0..20usize)
}

/// Sizes where products and sums overflow, beside small ones.
fn any_size() -> impl Strategy<Value = usize> {
    let powers = (0..usize::BITS, 0..3usize).prop_map(|(bits, off)| (1 << bits) + off - 1);
    prop_oneof![0..4usize, powers, any::<usize>(), Just(usize::MAX), Just(isize::MAX as usize / 4)]
}

proptest! {
    // No file of past failures: a case that failed is written out as a test of its own.
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn small_views_are_accepted_as_the_model_says(shape in small(), len in 0..150usize) {
        accepted_as_the_model_says(shape, len);
    }

    #[test]
    fn sizes_that_overflow_are_refused(
        shape in (any_size(), any_size(), any_size(), any_size()),
        len in 0..40usize,
    ) {
        accepted_as_the_model_says(shape, len);
        let (rows, cols, ..) = shape;
        let mut data = data(len);
        let row_major = (rows, cols, cols, 1);
        prop_assert_eq!(verdict(MatRef::new(&data, rows, cols)), model(len, row_major, false));
        prop_assert_eq!(verdict(MatMut::new(&mut data, rows, cols)), model(len, row_major, true));
        let exact = match model(len, row_major, false) {
            Verdict::Fine if rows * cols != len => Verdict::Length,
            other => other,
        };
        prop_assert_eq!(verdict(Matrix::from_vec(rows, cols, data)), exact);
    }

    #[test]
    fn elements_are_where_index_arithmetic_says(shape in small()) {
        let (rows, cols, row_stride, col_stride) = shape;
        let place = |i: usize, j: usize| i * row_stride + j * col_stride;
        // Exactly as long as it must be.
        let empty = rows == 0 || cols == 0;
        let mut data = data(if empty { 0 } else { place(rows - 1, cols - 1) + 1 });
        let a = MatRef::strided(&data, rows, cols, row_stride, col_stride).unwrap();
        prop_assert_eq!((a.rows(), a.cols(), a.t().rows(), a.t().cols()), (rows, cols, cols, rows));
        for i in 0..rows + 2 {
            for j in 0..cols + 2 {
                let want = (i < rows && j < cols).then(|| place(i, j) as f32);
                prop_assert_eq!(a.get(i, j), want);
                prop_assert_eq!(a.t().get(j, i), want);
                prop_assert_eq!(a.t().t().get(i, j), want);
            }
            let row = a.row(i).map(<[f32]>::to_vec);
            let contiguous = i < rows && (col_stride == 1 || cols <= 1);
            prop_assert_eq!(row, contiguous.then(|| (0..cols).map(|j| place(i, j) as f32).collect()));
        }
        for start in 0..rows + 2 {
            for count in 0..rows + 2 {
                let part = a.row_range(start, count);
                prop_assert_eq!(part.is_some(), start + count <= rows);
                let Some(part) = part else { continue };
                prop_assert_eq!((part.rows(), part.cols()), (count, cols));
                for (i, j) in (0..count).flat_map(|i| (0..cols).map(move |j| (i, j))) {
                    prop_assert_eq!(part.get(i, j), Some(place(start + i, j) as f32));
                }
            }
        }
        if let Ok(mut c) = MatMut::strided(&mut data, rows, cols, row_stride, col_stride) {
            prop_assert_eq!((c.rows(), c.cols()), (rows, cols));
            for (i, j) in (0..rows + 1).flat_map(|i| (0..cols + 1).map(move |j| (i, j))) {
                let want = (i < rows && j < cols).then(|| place(i, j) as f32);
                prop_assert_eq!((c.get(i, j), c.as_ref().get(i, j), c.reborrow().t().get(j, i)), (want, want, want));
            }
            for i in 0..rows + 1 {
                let contiguous = i < rows && (col_stride == 1 || cols <= 1);
                let row = c.row_mut(i);
                prop_assert_eq!(row.is_some(), contiguous);
                row.into_iter().for_each(|row| row.fill(-1.0));
                prop_assert!(!contiguous || (0..cols).all(|j| c.get(i, j) == Some(-1.0)));
            }
        }
    }
}

/// The other side of the model's bounds, where generated cases hardly ever stand.
#[test]
fn the_first_size_that_does_not_fit() {
    let most = isize::MAX as usize / size_of::<f32>();
    let data = [0.0; 3];
    // One element at any stride; the last place that could be addressed; the first that could not.
    assert_eq!(verdict(MatRef::strided(&data, 1, 1, usize::MAX, usize::MAX)), Verdict::Fine);
    assert_eq!(verdict(MatRef::strided(&data, 2, 1, most - 1, 0)), Verdict::Length);
    assert_eq!(verdict(MatRef::strided(&data, 2, 1, most, 0)), Verdict::TooLarge);
    // Without rows or columns nothing is spanned, but rows x columns is a number; a stride of 0 makes any size fit.
    assert_eq!(verdict(MatRef::strided(&[], 0, usize::MAX, usize::MAX, usize::MAX)), Verdict::Fine);
    assert_eq!(verdict(MatRef::strided(&data, usize::MAX, 1, 0, 0)), Verdict::Fine);
    assert_eq!(verdict(MatRef::strided(&data, usize::MAX, 2, 0, 0)), Verdict::TooLarge);
    assert_eq!(verdict(MatMut::strided(&mut [0.0; 3], usize::MAX, 1, 0, 0)), Verdict::Overlap);
}
