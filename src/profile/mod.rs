//! Where the cycles go: a table of core cycles, FLOP, bytes and what bounds each phase of each layer.
//!
//! [`record`] watches what a closure does on this thread: steps of a [`Trainer`](crate::Trainer), whole fits and
//! evaluations, predictions of an [`Mlp`](crate::Mlp), and the products that these hand to the pool.
//!
//! ```
//! use percycle::{Activation, Loss, Matrix, Mlp, Sgd, Targets, Trainer, profile};
//!
//! let mlp = Mlp::builder(20).layer(16, Activation::Relu).layer(3, Activation::Identity).build()?;
//! let mut trainer = Trainer::new(mlp, Loss::CrossEntropy { label_smoothing: 0.0 }, Sgd::new(0.1))?;
//! let x = Matrix::zeros(8, 20);
//! let (result, report) = profile::record(|| -> percycle::Result<()> {
//!     for _ in 0..10 {
//!         trainer.step(x.view(), Targets::Classes(&[0; 8]))?;
//!     }
//!     Ok(())
//! });
//! result?;
//! assert_eq!(report.calls, 10);
//! println!("{report}");
//! for entry in report.entries() {
//!     println!("{:?} {}: {:?} cycles", entry.layer, entry.phase, entry.cycles);
//! }
//! # Ok::<(), percycle::Error>(())
//! ```
//!
//! A [`Report`] and its entries are [`serde::Serialize`]: `serde_json::to_string(&report)` writes the document that
//! `docs/profile.schema.json` describes, and a `csv::Writer` takes the entries as they are.
//!
//! When nobody records, a phase costs one look at a flag of the thread.

mod clock;
mod machine;
mod report;
mod scope;
mod table;
mod work;

pub use crate::kernels::{Kernel, read_bandwidth};
pub use clock::{Clock, ClockSource};
pub use machine::{Level, Machine, Peak};
pub use report::{Bound, Entry, Report, Row};
pub use scope::{Phase, kernel_of, record};
pub(crate) use scope::{call, enter};
pub(crate) use work::Work;
