//! The specification of percycle as plain loops, to be read beside the article that it comes from: a network computes
//! `y = sigma(W x + b)` layer by layer, measures a loss, carries its derivative back, and takes a step downhill.
//!
//! It is slow on purpose and depends on nothing: the tests of percycle compare every kernel with it, bit by bit.

pub mod activation;
pub mod backward;
pub mod loss;
pub mod math;
pub mod optimizer;
pub mod product;
pub mod train;
