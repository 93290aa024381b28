//! How good a network is on samples that it is not trained on.

use super::dataset::{Batch, of_sample};
use super::{Dataset, Targets, Trainer};
use crate::error::{Error, Result};

/// Samples measured at once: enough for the products to be fast, few enough for little memory.
const CHUNK: usize = 512;

/// The loss of a network on a dataset and, where targets are classes, what it takes for what.
///
/// ```
/// use percycle::{Activation, Dataset, Loss, Matrix, Mlp, Sgd, Trainer};
///
/// let mlp = Mlp::builder(2).layer(3, Activation::Identity).build()?;
/// let mut trainer = Trainer::new(mlp, Loss::CrossEntropy { label_smoothing: 0.0 }, Sgd::new(0.1))?;
/// let data = Dataset::classes(Matrix::zeros(4, 2), vec![0, 1, 2, 2])?;
/// let evaluation = trainer.evaluate(&data)?;
/// assert_eq!(evaluation.samples, 4);
/// assert_eq!(evaluation.confusion.unwrap().iter().flatten().sum::<u64>(), 4);
/// # Ok::<(), percycle::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Evaluation {
    /// The mean loss.
    pub loss: f32,
    /// The number of samples.
    pub samples: usize,
    /// The share of samples whose largest output is their class.
    pub accuracy: Option<f64>,
    /// `confusion[class][predicted]`: samples of each class by what they were taken for.
    pub confusion: Option<Vec<Vec<u64>>>,
}

impl Trainer {
    /// Measures the network on a dataset. Weights, optimizer and what has been accumulated stay as they are.
    ///
    /// # Errors
    /// [`Error::Empty`] without samples, and those of [`Trainer::step`] for samples that do not fit.
    pub fn evaluate(&mut self, data: &Dataset) -> Result<Evaluation> {
        let op = "Trainer::evaluate";
        if data.is_empty() {
            return Err(Error::Empty { op, what: "the data", cure: "pass at least one sample" });
        }
        let classes = self.model().outputs();
        // Of the whole: the chunks below would be named by their own size.
        self.model().check_input(op, data.x())?;
        self.loss().check_shape(op, data.len(), classes, data.targets())?;
        let mut confusion = None;
        let (mut sum, mut count) = (0.0, 0);
        let rows: Vec<usize> = (0..data.len()).collect();
        let mut batch = Batch::default();
        for rows in rows.chunks(CHUNK) {
            batch.fill(data, rows);
            let (x, targets) = batch.get(data)?;
            let (measured, outputs) = self.measure(op, x, targets).map_err(|error| of_sample(error, rows))?;
            sum += measured.sum;
            count += measured.count;
            if let Targets::Classes(targets) = targets {
                let confusion = confusion.get_or_insert_with(|| vec![vec![0; classes]; classes]);
                for (i, &class) in targets.iter().enumerate() {
                    confusion[class as usize][outputs.row(i).map_or(0, largest)] += 1;
                }
            }
        }
        let right =
            |confusion: &Vec<Vec<u64>>| (0..classes).map(|class| confusion[class][class]).sum::<u64>();
        Ok(Evaluation {
            loss: (sum / count as f64) as f32,
            samples: data.len(),
            accuracy: confusion.as_ref().map(|confusion| right(confusion) as f64 / data.len() as f64),
            confusion,
        })
    }
}

/// The index of the largest value, the first of several.
fn largest(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = i;
        }
    }
    best
}
