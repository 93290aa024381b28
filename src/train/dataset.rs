//! Samples and their targets.

use super::Targets;
use crate::error::{Error, Result};
use crate::matrix::{MatRef, Matrix};
use crate::nn::Uniform;

/// Samples, one in each row of a matrix, and a target for each.
///
/// ```
/// use percycle::{Dataset, Matrix};
///
/// let x = Matrix::from_vec(4, 1, vec![0.0, 1.0, 2.0, 3.0])?;
/// let data = Dataset::classes(x, vec![0, 0, 1, 1])?;
/// let (train, held_out) = data.stratified_split(2, 7)?; // one of each class is held out
/// assert_eq!((train.len(), held_out.len()), (2, 2));
/// # Ok::<(), percycle::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    x: Matrix,
    targets: Stored,
}

#[derive(Clone, Debug, PartialEq)]
enum Stored {
    Classes(Vec<u32>),
    Values(Matrix),
}

impl Dataset {
    /// Samples that belong to classes, counted from 0.
    ///
    /// # Errors
    /// [`Error::Length`] when there is not one class for each row of `x`; [`Error::Data`] for values that are not finite.
    pub fn classes(x: Matrix, classes: Vec<u32>) -> Result<Dataset> {
        let op = "Dataset::classes";
        check_finite(op, "x", &x)?;
        if classes.len() != x.rows() {
            let cure = "one class for each row of x";
            return Err(Error::Length { op, name: "classes", got: classes.len(), want: x.rows(), cure });
        }
        Ok(Dataset { x, targets: Stored::Classes(classes) })
    }

    /// Samples with values to be met, a row for each.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x` and `y` differ in rows; [`Error::Data`] for values that are not finite.
    pub fn values(x: Matrix, y: Matrix) -> Result<Dataset> {
        let op = "Dataset::values";
        check_finite(op, "x", &x)?;
        check_finite(op, "y", &y)?;
        if x.rows() != y.rows() {
            let (left_shape, right_shape) = (x.view().shape(), y.view().shape());
            let cure = "one row of y for each row of x";
            return Err(Error::Shape { op, left: "x", left_shape, right: "y", right_shape, cure });
        }
        Ok(Dataset { x, targets: Stored::Values(y) })
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.x.rows()
    }

    /// True without a sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples, `len` x `inputs`.
    pub fn x(&self) -> MatRef<'_> {
        self.x.view()
    }

    /// The targets of all samples.
    pub fn targets(&self) -> Targets<'_> {
        match &self.targets {
            Stored::Classes(classes) => Targets::Classes(classes),
            Stored::Values(y) => Targets::Values(y.view()),
        }
    }

    /// Puts `held_out` samples, drawn at random, into a second set: (the rest, held out). Both keep their order.
    ///
    /// # Errors
    /// [`Error::Setting`] when there are fewer samples.
    pub fn split(&self, held_out: usize, seed: u64) -> Result<(Dataset, Dataset)> {
        self.check_held_out("Dataset::split", held_out)?;
        let mut order: Vec<usize> = (0..self.len()).collect();
        Uniform::new(seed).shuffle(&mut order);
        Ok(self.part(&order[..held_out]))
    }

    /// Like [`Dataset::split`], with each class held out in its share: the fractions that are left over after rounding
    /// down go to the classes with the largest, as usual for seats in a parliament.
    ///
    /// # Errors
    /// As for [`Dataset::split`]; [`Error::Targets`] when the targets are not classes.
    pub fn stratified_split(&self, held_out: usize, seed: u64) -> Result<(Dataset, Dataset)> {
        let op = "Dataset::stratified_split";
        self.check_held_out(op, held_out)?;
        let Stored::Classes(classes) = &self.targets else {
            let (takes, cure) = ("classes", "use `split` for values");
            return Err(Error::Targets { op, loss: "a stratified split", takes, cure });
        };
        let mut of_class = std::collections::BTreeMap::<u32, Vec<usize>>::new();
        for (i, &class) in classes.iter().enumerate() {
            of_class.entry(class).or_default().push(i);
        }
        let mut random = Uniform::new(seed);
        let mut shares = Vec::with_capacity(of_class.len());
        for members in of_class.values_mut() {
            random.shuffle(members);
            let exact = members.len() as u128 * held_out as u128;
            shares.push(((exact / self.len() as u128) as usize, exact % self.len() as u128));
        }
        let mut left = held_out - shares.iter().map(|share| share.0).sum::<usize>();
        let mut by_rest: Vec<usize> = (0..shares.len()).collect();
        by_rest.sort_by_key(|&class| std::cmp::Reverse(shares[class].1));
        for class in by_rest {
            if left > 0 {
                shares[class].0 += 1;
                left -= 1;
            }
        }
        let chosen =
            of_class.values().zip(&shares).flat_map(|(members, share)| members[..share.0].iter().copied());
        Ok(self.part(&chosen.collect::<Vec<_>>()))
    }

    fn check_held_out(&self, op: &'static str, held_out: usize) -> Result<()> {
        if held_out > self.len() {
            let must = "at most the number of samples";
            return Err(Error::Setting { op, name: "held_out", value: held_out.to_string(), must });
        }
        Ok(())
    }

    /// The samples that were not chosen, and those that were.
    fn part(&self, chosen: &[usize]) -> (Dataset, Dataset) {
        let mut is_chosen = vec![false; self.len()];
        for &i in chosen {
            is_chosen[i] = true;
        }
        let of = |wanted: bool| {
            let rows: Vec<usize> = (0..self.len()).filter(|&i| is_chosen[i] == wanted).collect();
            let mut batch = Batch::default();
            batch.fill(self, &rows);
            batch.into_dataset(self)
        };
        (of(false), of(true))
    }
}

fn check_finite(op: &'static str, name: &'static str, x: &Matrix) -> Result<()> {
    match x.as_slice().iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let (row, col, value) = (at / x.cols(), at % x.cols(), x.as_slice()[at]);
            Err(Error::Data { op, name, row, col, value, cure: "clean the data: every value must be finite" })
        }
    }
}

/// Samples gathered from a dataset into buffers that are kept.
#[derive(Default)]
pub(super) struct Batch {
    x: Vec<f32>,
    classes: Vec<u32>,
    values: Vec<f32>,
    rows: usize,
}

impl Batch {
    /// Gathers the samples of these rows, which exist.
    pub(super) fn fill(&mut self, data: &Dataset, rows: &[usize]) {
        self.rows = rows.len();
        gather(&mut self.x, &data.x, rows);
        match &data.targets {
            Stored::Classes(classes) => {
                self.classes.clear();
                self.classes.extend(rows.iter().map(|&row| classes[row]));
            }
            Stored::Values(y) => gather(&mut self.values, y, rows),
        }
    }

    /// The gathered samples and their targets; `data` is where they came from.
    pub(super) fn get(&self, data: &Dataset) -> Result<(MatRef<'_>, Targets<'_>)> {
        let targets = match &data.targets {
            Stored::Classes(_) => Targets::Classes(&self.classes),
            Stored::Values(y) => Targets::Values(MatRef::new(&self.values, self.rows, y.cols())?),
        };
        Ok((MatRef::new(&self.x, self.rows, data.x.cols())?, targets))
    }

    fn into_dataset(self, data: &Dataset) -> Dataset {
        let matrix = |values: Vec<f32>, cols| {
            // Whole rows were gathered; should that ever fail, an empty matrix is the honest rest.
            Matrix::from_vec(self.rows, cols, values).unwrap_or_default()
        };
        let targets = match &data.targets {
            Stored::Classes(_) => Stored::Classes(self.classes),
            Stored::Values(y) => Stored::Values(matrix(self.values, y.cols())),
        };
        Dataset { x: matrix(self.x, data.x.cols()), targets }
    }
}

/// The same error, with the row of the batch turned into the sample of the dataset that was gathered there.
pub(super) fn of_sample(mut error: Error, rows: &[usize]) -> Error {
    if let Error::Data { row, .. } | Error::Class { row, .. } = &mut error {
        *row = rows.get(*row).copied().unwrap_or(*row);
    }
    error
}

fn gather(to: &mut Vec<f32>, from: &Matrix, rows: &[usize]) {
    to.clear();
    to.extend(rows.iter().filter_map(|&row| from.row(row)).flatten());
}
