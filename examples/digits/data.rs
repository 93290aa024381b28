//! The images: read from a gzipped CSV file, checked, and turned into samples.

use std::fs::File;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use percycle::{Dataset, Matrix};

use crate::common::Failure;

/// Rows and columns of an image.
pub const SIDE: usize = 8;
/// Values in an image.
pub const PIXELS: usize = SIDE * SIDE;
/// The digits.
pub const CLASSES: u32 = 10;
/// The darkest a pixel can be.
pub const DARKEST: f32 = 16.0;

/// The file that comes with the project.
pub fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/digits.csv.gz")
}

/// Reads the images, pixels scaled to 0..1, and their digits.
pub fn read(path: &Path) -> Result<Dataset, Failure> {
    let problem = |what: String| format!("{}: {what}", path.display());
    let file = File::open(path).map_err(|error| problem(error.to_string()))?;
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true) // the length of each row is checked below, with a better message
        .from_reader(GzDecoder::new(file));
    let (mut pixels, mut classes) = (Vec::new(), Vec::new());
    for (row, record) in reader.records().enumerate() {
        let at = |what: String| problem(format!("row {}: {what}", row + 1));
        let record = record.map_err(|error| problem(format!("not a gzipped CSV file: {error}")))?;
        if record.len() != PIXELS + 1 {
            return Err(
                at(format!("{} values, but {PIXELS} pixels and a label are needed", record.len())).into()
            );
        }
        for (column, text) in record.iter().enumerate() {
            let most = if column < PIXELS { DARKEST } else { CLASSES as f32 - 1.0 };
            let value = text.trim().parse::<f32>().ok().filter(|value| (0.0..=most).contains(value));
            let value =
                value.ok_or_else(|| at(format!("value {} is `{text}`, not in 0..{most}", column + 1)))?;
            if column < PIXELS {
                pixels.push(value / DARKEST);
            } else if value.fract() == 0.0 {
                classes.push(value as u32);
            } else {
                return Err(at(format!("the label is `{text}`, not a whole number")).into());
            }
        }
    }
    let images = Matrix::from_vec(classes.len(), PIXELS, pixels)?;
    Ok(Dataset::classes(images, classes)?)
}
