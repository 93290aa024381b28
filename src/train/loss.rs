//! Losses and what they are measured against.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::kernels::loss::{Bce, BceWithLogits, Mse, cross_entropy, elements};
use crate::kernels::reduce::all_finite;
use crate::matrix::MatRef;
use crate::simd::Isa;

/// What training makes small. All are means, as in PyTorch: over the elements of the batch, for
/// [`Loss::CrossEntropy`] over its samples.
///
/// ```
/// use percycle::{Activation, Loss, MatRef, Mlp, Sgd, Targets, Trainer};
///
/// let mlp = Mlp::builder(1).layer(1, Activation::Identity).seed(1).build()?;
/// let mut trainer = Trainer::new(mlp, Loss::Mse, Sgd::new(0.1))?;
/// let (x, y) = ([1.0, 2.0], [3.0, 5.0]);
/// let (x, y) = (MatRef::new(&x, 2, 1)?, MatRef::new(&y, 2, 1)?);
/// let first = trainer.step(x, Targets::Values(y))?;
/// assert!(trainer.step(x, Targets::Values(y))? < first);
/// # Ok::<(), percycle::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Loss {
    /// The mean of `(y - t)^2`, without a factor 1/2. Takes values.
    Mse,
    /// Binary cross-entropy on probabilities, `-(t log y + (1 - t) log(1 - y))`, logs at least -100. Takes
    /// values in [0, 1], and a network whose outputs are in [0, 1]: end it in
    /// [`Activation::Sigmoid`](crate::Activation), or better, use [`Loss::BceWithLogits`].
    Bce,
    /// Sigmoid and binary cross-entropy in one, `max(z, 0) - z t + log1p(exp(-|z|))`: end the network in
    /// [`Activation::Identity`](crate::Activation). Takes values in [0, 1].
    BceWithLogits,
    /// Softmax and cross-entropy in one, `(1 - e) nll + e / C sum(-log p)`: end the network in
    /// [`Activation::Identity`](crate::Activation) with an output for each class. Takes classes.
    CrossEntropy {
        /// The share `e` of the target that is spread over all classes, from 0 to 1.
        label_smoothing: f32,
    },
}

/// What the outputs should be: values as `batch` x `outputs`, or one class for each sample, counted from 0.
///
/// ```
/// use percycle::{MatRef, Targets};
///
/// let values = Targets::Values(MatRef::new(&[0.0, 1.0], 2, 1)?);
/// let classes = Targets::Classes(&[2, 0]);
/// assert_eq!((values.len(), classes.len()), (2, 2));
/// # Ok::<(), percycle::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// One row for each sample, one column for each output.
    Values(MatRef<'a>),
    /// The class of each sample.
    Classes(&'a [u32]),
}

impl Targets<'_> {
    /// The number of samples.
    pub fn len(&self) -> usize {
        match self {
            Targets::Values(values) => values.rows(),
            Targets::Classes(classes) => classes.len(),
        }
    }

    /// True when there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Loss {
    fn name(self) -> &'static str {
        match self {
            Loss::Mse => "Loss::Mse",
            Loss::Bce => "Loss::Bce",
            Loss::BceWithLogits => "Loss::BceWithLogits",
            Loss::CrossEntropy { .. } => "Loss::CrossEntropy",
        }
    }

    pub(super) fn validate(self, op: &'static str) -> Result<()> {
        match self {
            Loss::CrossEntropy { label_smoothing } if !(0.0..=1.0).contains(&label_smoothing) => {
                Err(Error::Setting {
                    op,
                    name: "the label smoothing",
                    value: label_smoothing.to_string(),
                    must: "from 0 to 1",
                })
            }
            _ => Ok(()),
        }
    }

    /// Terms of the sum in a batch of so many samples.
    pub(super) fn terms(self, rows: usize, outputs: usize) -> usize {
        match self {
            Loss::CrossEntropy { .. } => rows,
            Loss::Mse | Loss::Bce | Loss::BceWithLogits => rows * outputs,
        }
    }

    /// Checks that targets are of the right kind and shape for `rows` samples and as many outputs.
    pub(super) fn check_shape(
        self,
        op: &'static str,
        rows: usize,
        outputs: usize,
        targets: Targets,
    ) -> Result<()> {
        match (self, targets) {
            (Loss::CrossEntropy { .. }, Targets::Classes(classes)) if classes.len() != rows => {
                Err(Error::Length {
                    op,
                    name: "targets",
                    got: classes.len(),
                    want: rows,
                    cure: "one class for each row of x",
                })
            }
            (Loss::CrossEntropy { .. }, Targets::Classes(_)) => Ok(()),
            (Loss::CrossEntropy { .. }, Targets::Values(_)) => Err(Error::Targets {
                op,
                loss: self.name(),
                takes: "classes",
                cure: "pass Targets::Classes with one class for each sample",
            }),
            (_, Targets::Classes(_)) => Err(Error::Targets {
                op,
                loss: self.name(),
                takes: "values",
                cure: "pass Targets::Values, or train with Loss::CrossEntropy",
            }),
            (_, Targets::Values(values)) if values.shape() != (rows, outputs) => Err(Error::Shape {
                op,
                left: "targets",
                left_shape: values.shape(),
                right: "the network's output",
                right_shape: (rows, outputs),
                cure: "one row for each row of x and one column for each output",
            }),
            (_, Targets::Values(_)) => Ok(()),
        }
    }

    /// Checks the targets themselves. Values that do not lie row after row are copied to `values` so.
    pub(super) fn check_targets(
        self,
        op: &'static str,
        isa: Isa,
        outputs: usize,
        targets: Targets,
        values: &mut [f32],
    ) -> Result<()> {
        match targets {
            Targets::Classes(classes) => {
                let out_of_range = |class: &u32| usize::try_from(*class).map_or(true, |c| c >= outputs);
                if let Some(row) = classes.iter().position(out_of_range) {
                    return Err(Error::Class { op, row, class: classes[row], classes: outputs });
                }
                Ok(())
            }
            Targets::Values(view) => {
                if targets.in_rows().is_none() {
                    copy_rows(view, values);
                }
                let values = targets.in_rows().unwrap_or(values);
                if matches!(self, Loss::Bce | Loss::BceWithLogits) {
                    let cure = "targets of binary cross-entropy must be in [0, 1]";
                    return check_range(op, "targets", 0, outputs, values, cure);
                }
                check_finite(op, isa, "targets", 0, outputs, values)
            }
        }
    }

    /// Checks that the network's outputs are what the loss takes: those of samples from number `first` on.
    pub(super) fn check_outputs(
        self,
        op: &'static str,
        first: usize,
        outputs: usize,
        y: &[f32],
    ) -> Result<()> {
        if self != Loss::Bce {
            return Ok(());
        }
        let cure = "Loss::Bce takes probabilities: \
                    end the network in Activation::Sigmoid, or use Loss::BceWithLogits";
        check_range(op, "the network's output", first, outputs, y, cure).or_else(|error| match error {
            // A NaN is for the loss to report, with its layer.
            Error::Data { value, .. } if value.is_nan() => Ok(()),
            error => Err(error),
        })
    }

    /// The terms of the loss of these outputs, and the derivative of their sum by each output. All arguments have been checked.
    pub(super) fn differentiate(
        self,
        isa: Isa,
        y: &[f32],
        targets: Targets,
        values: &[f32],
        terms: &mut [f32],
        delta: &mut [f32],
    ) {
        match (self, targets) {
            (Loss::CrossEntropy { label_smoothing }, Targets::Classes(classes)) => {
                cross_entropy(isa, label_smoothing, y, classes, terms, delta);
            }
            (Loss::Bce, _) => elements::<Bce>(isa, y, values, terms, delta),
            (Loss::BceWithLogits, _) => elements::<BceWithLogits>(isa, y, values, terms, delta),
            _ => elements::<Mse>(isa, y, values, terms, delta),
        }
    }
}

impl<'a> Targets<'a> {
    /// Those of some samples, which there are.
    pub(super) fn part(self, rows: Range<usize>) -> Self {
        match self {
            Targets::Values(view) => Targets::Values(view.rows_from(rows.start, rows.len())),
            Targets::Classes(classes) => Targets::Classes(&classes[rows]),
        }
    }

    /// The values, row after row, where they lie so; nothing for classes.
    pub(super) fn in_rows(self) -> Option<&'a [f32]> {
        match self {
            Targets::Values(view) => view.contiguous(),
            Targets::Classes(_) => None,
        }
    }
}

/// Copies a matrix with any strides to a row-major slice of its size.
fn copy_rows(from: MatRef, to: &mut [f32]) {
    for (i, to) in to.chunks_exact_mut(from.cols().max(1)).enumerate() {
        if let Some(row) = from.row(i) {
            to.copy_from_slice(row);
        } else {
            for (j, to) in to.iter_mut().enumerate() {
                *to = from.get(i, j).unwrap_or_default();
            }
        }
    }
}

/// Checks that rows of `cols` values, the first of them row `first`, are in [0, 1].
fn check_range(
    op: &'static str,
    name: &'static str,
    first: usize,
    cols: usize,
    xs: &[f32],
    cure: &'static str,
) -> Result<()> {
    match xs.iter().position(|x| !(0.0..=1.0).contains(x)) {
        None => Ok(()),
        Some(at) => {
            Err(Error::Data { op, name, row: first + at / cols, col: at % cols, value: xs[at], cure })
        }
    }
}

/// Checks that rows of `cols` values, the first of them row `first`, hold no infinity and no NaN.
pub(super) fn check_finite(
    op: &'static str,
    isa: Isa,
    name: &'static str,
    first: usize,
    cols: usize,
    xs: &[f32],
) -> Result<()> {
    if all_finite(isa, xs) {
        return Ok(());
    }
    let at = xs.iter().position(|x| !x.is_finite()).unwrap_or_default();
    Err(Error::Data {
        op,
        name,
        row: first + at / cols,
        col: at % cols,
        value: xs[at],
        cure: "every value must be finite: repair the sample or leave it out",
    })
}
