//! Networks: layers, their initial values, prediction, files.

mod init;
mod io;
mod linear;
mod mlp;

pub use init::Init;
pub(crate) use init::Uniform;
pub use linear::Linear;
pub use mlp::{Mlp, MlpBuilder, Workspace};
