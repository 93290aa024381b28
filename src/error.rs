//! What can go wrong, said so that the reader knows the operation, the shapes and the cure.

use std::path::PathBuf;

/// The result of every fallible call of the crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call was refused. Nothing has been changed when one is returned, unless the variant says otherwise.
///
/// ```
/// use percycle::{matmul, Matrix};
///
/// let (a, b) = (Matrix::zeros(2, 3), Matrix::zeros(4, 5));
/// let error = matmul(a.view(), b.view(), Matrix::zeros(2, 5).view_mut()).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "matmul: a is 2x3 but b is 4x5: a needs as many columns as b has rows"
/// );
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two shapes do not fit together.
    #[error("{op}: {left} is {}x{} but {right} is {}x{}: {cure}", left_shape.0, left_shape.1, right_shape.0, right_shape.1)]
    Shape {
        /// The operation that was refused.
        op: &'static str,
        /// The name of the first operand.
        left: &'static str,
        /// Its rows and columns.
        left_shape: (usize, usize),
        /// The name of the second operand.
        right: &'static str,
        /// Its rows and columns.
        right_shape: (usize, usize),
        /// What would make it fit.
        cure: &'static str,
    },
    /// A slice is too short, or not exactly as long as it must be.
    #[error("{op}: {name} holds {got} elements but {want} are needed: {cure}")]
    Length {
        /// The operation that was refused.
        op: &'static str,
        /// The name of the slice.
        name: &'static str,
        /// Its length.
        got: usize,
        /// The length that is needed.
        want: usize,
        /// What would make it fit.
        cure: &'static str,
    },
    /// The extent of a matrix does not fit in memory's address range.
    #[error(
        "{op}: {rows}x{cols} with strides ({row_stride}, {col_stride}) spans more elements than can be addressed: \
         check the dimensions"
    )]
    TooLarge {
        /// The operation that was refused.
        op: &'static str,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
        /// Elements from one row to the next.
        row_stride: usize,
        /// Elements from one column to the next.
        col_stride: usize,
    },
    /// The strides of a writable view map two of its elements to one place.
    #[error(
        "{op}: {rows}x{cols} with strides ({row_stride}, {col_stride}) maps two elements to one place: \
         a writable view needs a place for each"
    )]
    Overlap {
        /// The operation that was refused.
        op: &'static str,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
        /// Elements from one row to the next.
        row_stride: usize,
        /// Elements from one column to the next.
        col_stride: usize,
    },
    /// An instruction set was asked for that does not exist, or that this CPU lacks.
    #[error("instruction set `{requested}` is not to be had here: this CPU runs {available}")]
    Isa {
        /// What was asked for.
        requested: String,
        /// The names that would work.
        available: String,
    },
    /// A setting is outside its range.
    #[error("{op}: {name} is {value}: it must be {must}")]
    Setting {
        /// The operation that was refused.
        op: &'static str,
        /// The name of the setting.
        name: &'static str,
        /// The value that was given.
        value: String,
        /// What it must be.
        must: &'static str,
    },
    /// An element of the data cannot be used.
    #[error("{op}: {name}[{row}, {col}] is {value}: {cure}")]
    Data {
        /// The operation that was refused.
        op: &'static str,
        /// The name of the operand.
        name: &'static str,
        /// The row of the element.
        row: usize,
        /// The column of the element.
        col: usize,
        /// Its value.
        value: f32,
        /// What it must be, or what to do.
        cure: &'static str,
    },
    /// A class index does not name one of the outputs.
    #[error(
        "{op}: target {row} is class {class} but the network has {classes} outputs: classes count from 0"
    )]
    Class {
        /// The operation that was refused.
        op: &'static str,
        /// The sample.
        row: usize,
        /// Its class.
        class: u32,
        /// The number of classes.
        classes: usize,
    },
    /// There is nothing to work on.
    #[error("{op}: {what} is empty: {cure}")]
    Empty {
        /// The operation that was refused.
        op: &'static str,
        /// What is empty.
        what: &'static str,
        /// What to do.
        cure: &'static str,
    },
    /// The kind of targets does not go with the loss.
    #[error("{op}: {loss} takes {takes}: {cure}")]
    Targets {
        /// The operation that was refused.
        op: &'static str,
        /// The loss.
        loss: &'static str,
        /// The kind of targets it takes.
        takes: &'static str,
        /// What to do.
        cure: &'static str,
    },
    /// Training met a number that is not finite. The model keeps its last good weights.
    #[error(
        "{op}: {what} is not finite in epoch {epoch}, step {step}{}: the last good weights are kept; \
         lower the learning rate, clip gradients or check the data",
        layer.map_or(String::new(), |layer| format!(", layer {layer}"))
    )]
    NotFinite {
        /// The operation that stopped.
        op: &'static str,
        /// What is not finite: the loss, a weight, a bias.
        what: &'static str,
        /// The epoch, from 1; 0 outside `fit`.
        epoch: usize,
        /// The update, from 1, counted over the life of the trainer.
        step: u64,
        /// The layer, from 0, where one can be named.
        layer: Option<usize>,
    },
    /// A file could not be read or written.
    #[error("{op} {}: {source}", path.display())]
    Io {
        /// The operation that failed.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{op} {}: {problem}", path.display())]
    Format {
        /// The operation that failed.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what is needed.
        problem: String,
    },
}
