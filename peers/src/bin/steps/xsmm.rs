//! libxsmm-dnn, by way of `xsmm.c`: a library that `peers/run steps` builds and that is loaded when the program runs.

use std::ffi::{c_int, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};

use libloading::Library;
use percycle_peers::nets::{Loss, Net, Optimizer, TIMED_RATE, Targets, Task};
use percycle_peers::ours::Call;
use percycle_peers::{Failure, Sampler, contender};

#[rustfmt::skip]
type New = unsafe extern "C" fn(
    layers: c_int, units: *const c_int, batch: c_int, bn: c_int, block: c_int, threads: c_int, rate: f32,
    weights: *const *const f32, biases: *const *const f32, x: *const f32, labels: *const c_int,
) -> *mut c_void;

/// The functions of `xsmm.c`.
#[derive(Clone, Copy)]
pub struct Xsmm {
    new: New,
    call: unsafe extern "C" fn(*mut c_void) -> f32,
    drop: unsafe extern "C" fn(*mut c_void),
    threads: usize,
}

/// A net of `xsmm.c`, and the labels that it reads.
struct Handle {
    xsmm: Xsmm,
    net: NonNull<c_void>,
    _labels: Vec<c_int>,
}

impl Handle {
    fn call(&mut self) -> f32 {
        // SAFETY: `xsmm_new` made it, and nobody else calls it, as it is borrowed mutably.
        unsafe { (self.xsmm.call)(self.net.as_ptr()) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: `xsmm_new` made it, and nobody else has it.
        unsafe { (self.xsmm.drop)(self.net.as_ptr()) }
    }
}

/// Samples and units of a block that are tried; the fastest are taken.
const SAMPLES: [usize; 3] = [16, 32, 64];
const UNITS: [usize; 5] = [16, 32, 48, 64, 128];

impl Xsmm {
    /// Loads the library, for as long as the program runs.
    pub fn load(path: &Path, threads: usize) -> Result<Xsmm, Failure> {
        // SAFETY: the user named this file as that library; loading one runs only its initialisers.
        let library: &'static Library = Box::leak(Box::new(unsafe { Library::new(path) }?));
        // SAFETY: the types are those of `xsmm.c`.
        unsafe {
            Ok(Xsmm {
                new: *library.get("xsmm_new")?,
                call: *library.get("xsmm_call")?,
                drop: *library.get("xsmm_drop")?,
                threads,
            })
        }
    }

    /// Its call for a net, in the blocks that take the least time. None where libxsmm-dnn has no such loss or optimizer.
    pub fn prepare<'a>(&self, net: &'a Net, rate: f64) -> Result<Option<Call<'a>>, Failure> {
        let knows = matches!(net.task, Task::Predict | Task::Step(Loss::CrossEntropy, Optimizer::Sgd));
        if !knows || net.is_gelu() {
            return Ok(None);
        }
        let mut samples: Vec<usize> =
            SAMPLES.into_iter().filter(|bn| net.batch().is_multiple_of(*bn)).collect();
        if samples.is_empty() {
            samples.push(net.batch());
        }
        let mut best = (f64::INFINITY, (0, 0));
        for bn in samples {
            for block in UNITS {
                let seconds = Sampler::new(contender(self.call(net, TIMED_RATE, bn, block)?)).seconds();
                if seconds < best.0 {
                    best = (seconds, (bn, block));
                }
            }
        }
        let (_, (bn, block)) = best;
        Ok(Some(self.call(net, rate, bn, block)?))
    }

    fn call<'a>(&self, net: &'a Net, rate: f64, bn: usize, block: usize) -> Result<Call<'a>, Failure> {
        let int = |n: usize| c_int::try_from(n).expect("the nets are small");
        let layers = net.model.layers();
        let units: Vec<c_int> = net.units.iter().map(|&units| int(units)).collect();
        let weights: Vec<_> = layers.iter().map(|layer| layer.weight()).collect();
        let weights: Vec<_> = weights.iter().map(|weight| weight.as_slice().as_ptr()).collect();
        let biases: Vec<_> = layers.iter().map(|layer| layer.bias().as_ptr()).collect();
        let labels: Vec<c_int> = match (&net.targets, net.task) {
            (Targets::Classes(classes), Task::Step(..)) => {
                classes.iter().map(|&class| class as c_int).collect()
            }
            _ => Vec::new(),
        };
        let labels_or_none = if labels.is_empty() { ptr::null() } else { labels.as_ptr() };
        // SAFETY: there are as many weights, biases, samples and labels as the units and the batch say, the blocks of samples
        // divide the batch, and only the labels are read after this call: `Handle` keeps them.
        let net = unsafe {
            (self.new)(
                int(layers.len()),
                units.as_ptr(),
                int(net.batch()),
                int(bn),
                int(block),
                int(self.threads),
                rate as f32,
                weights.as_ptr(),
                biases.as_ptr(),
                net.x.as_slice().as_ptr(),
                labels_or_none,
            )
        };
        let net = NonNull::new(net).ok_or("libxsmm-dnn has made no net")?;
        let mut handle = Handle { xsmm: *self, net, _labels: labels };
        Ok(Box::new(move || handle.call()))
    }
}
