//! What a phase has to do, counted from shapes alone.
//!
//! FLOP are those of the products, 2 for each multiply-add. Activations, losses and optimizers are not counted: how many
//! operations they take depends on polynomials, and no one compares them. Bytes are those of operands, each read once and
//! each result written once, whatever is copied on the way and whichever cache it comes from.

/// Bytes of a value.
const VALUE: u64 = 4;

/// FLOP and bytes of one phase of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// The layer's inputs and outputs.
    pub layer: Option<(usize, usize)>,
    pub flop: u64,
    /// Read and written.
    pub bytes: u64,
    /// Bytes of different places: what is read and written counts once.
    pub touched: u64,
}

/// A layer and the batch that goes through it.
#[derive(Clone, Copy)]
struct Sizes {
    layer: (usize, usize),
    inputs: u64,
    outputs: u64,
    parameters: u64,
    product: u64,
}

impl Sizes {
    fn new(batch: usize, (inputs, outputs): (usize, usize)) -> Sizes {
        let (batch, n, m) = (batch as u64, inputs as u64, outputs as u64);
        Sizes {
            layer: (inputs, outputs),
            inputs: batch * n,
            outputs: batch * m,
            parameters: n * m + m,
            product: 2 * batch * n * m,
        }
    }

    /// The product, with so many values read, written, and both.
    fn work(self, read: u64, written: u64, both: u64) -> Work {
        Work { layer: Some(self.layer), flop: self.product, ..Work::moved(read, written, both) }
    }
}

impl Work {
    fn moved(read: u64, written: u64, both: u64) -> Work {
        let (bytes, touched) = (VALUE * (read + written + 2 * both), VALUE * (read + written + both));
        Work { layer: None, flop: 0, bytes, touched }
    }

    /// `Y = act(X W + b)`; with `saves_input`, what Y was before the activation is written too.
    pub(crate) fn forward(batch: usize, layer: (usize, usize), saves_input: bool) -> Work {
        let s = Sizes::new(batch, layer);
        s.work(s.inputs + s.parameters, s.outputs * (1 + u64::from(saves_input)), 0)
    }

    /// `dX = delta W^T`, times the derivative of the layer below at what was saved there, if it has one.
    pub(crate) fn delta(batch: usize, layer: (usize, usize), derivative: bool) -> Work {
        let s = Sizes::new(batch, layer);
        let weights = s.parameters - s.layer.1 as u64;
        s.work(s.outputs + weights + s.inputs * u64::from(derivative), s.inputs, 0)
    }

    /// `dW = X^T delta` and `db`, the sums of delta, used up by the update of the parameters and of `states` values that
    /// the optimizer keeps for each.
    pub(crate) fn descend(batch: usize, layer: (usize, usize), states: usize) -> Work {
        let s = Sizes::new(batch, layer);
        s.work(s.inputs + s.outputs, 0, s.parameters * (1 + states as u64))
    }

    /// `dW` and `db` stored, or added to what is stored.
    pub(crate) fn gradient(batch: usize, layer: (usize, usize), fresh: bool) -> Work {
        let s = Sizes::new(batch, layer);
        let (written, both) = if fresh { (s.parameters, 0) } else { (0, s.parameters) };
        s.work(s.inputs + s.outputs, written, both)
    }

    /// The update of all parameters by stored gradients.
    pub(crate) fn update(parameters: usize, states: usize) -> Work {
        let parameters = parameters as u64;
        Work::moved(parameters, 0, parameters * (1 + states as u64))
    }

    /// Outputs and targets read, the derivative by each output and the terms of the loss written.
    pub(crate) fn loss(outputs: usize, targets: usize, terms: usize) -> Work {
        Work::moved((outputs + targets) as u64, (outputs + terms) as u64, 0)
    }

    /// So many values looked at.
    pub(crate) fn check(values: usize) -> Work {
        Work::moved(values as u64, 0, 0)
    }
}
