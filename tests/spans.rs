//! With the feature `tracing`, calls, phases and layers are spans.
#![cfg(feature = "tracing")]

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use percycle::{Activation, Loss, Matrix, Mlp, Sgd, Targets, Trainer};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Writes down what spans are made, and how deep they stand.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<(Vec<String>, usize)>>);

impl Visit for Spans {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if let Some(name) = self.0.lock().unwrap().0.last_mut() {
            *name += &format!(" {}={value:?}", field.name());
        }
    }
}

impl Subscriber for Spans {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut spans = self.0.lock().unwrap();
        let name = format!("{}{}", "  ".repeat(spans.1), span.metadata().name());
        spans.0.push(name);
        let id = spans.0.len() as u64;
        drop(spans);
        span.record(&mut self.clone());
        Id::from_u64(id)
    }
    fn enter(&self, _: &Id) {
        self.0.lock().unwrap().1 += 1;
    }
    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().1 -= 1;
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
}

fn model() -> Mlp {
    Mlp::builder(3).layer(4, Activation::Relu).layer(2, Activation::Identity).build().unwrap()
}

/// The spans that `f` makes are these.
fn assert_spans(f: impl FnOnce(), expected: &[&str]) {
    let spans = Spans::default();
    tracing::subscriber::with_default(spans.clone(), f);
    let (names, depth) = std::mem::take(&mut *spans.0.lock().unwrap());
    assert_eq!(names, expected);
    assert_eq!(depth, 0, "every span has ended");
}

#[test]
fn a_step_is_a_span_of_its_phases() {
    let mut trainer = Trainer::new(model(), Loss::Mse, Sgd::new(0.1)).unwrap();
    let (x, y) = (Matrix::zeros(5, 3), Matrix::zeros(5, 2));
    let expected = [
        "call op=\"Trainer::step\"",
        "  checks",
        "  forward layer=0",
        "  forward layer=1",
        "  loss",
        "  loss",
        "  dX layer=1",
        "  checks",
        "  checks",
        "  dW+db+update layer=0",
        "  dW+db+update layer=1",
    ];
    let run = || {
        trainer.step(x.view(), Targets::Values(y.view())).unwrap();
    };
    assert_spans(run, &expected);
}

#[test]
fn micro_batches_and_their_update_are_spans() {
    let mut trainer = Trainer::new(model(), Loss::Mse, Sgd::new(0.1)).unwrap();
    let (x, y) = (Matrix::zeros(5, 3), Matrix::zeros(5, 2));
    let expected = [
        "call op=\"Trainer::accumulate\"",
        "  checks",
        "  forward layer=0",
        "  forward layer=1",
        "  loss",
        "  loss",
        "  dX layer=1",
        "  dW+db layer=0",
        "  dW+db layer=1",
        "call op=\"Trainer::apply\"",
        "  update",
    ];
    let run = || {
        trainer.accumulate(x.view(), Targets::Values(y.view())).unwrap();
        trainer.apply().unwrap();
    };
    assert_spans(run, &expected);
}

#[test]
fn a_prediction_is_a_span_of_its_layers() {
    let (mlp, x) = (model(), Matrix::zeros(5, 3));
    let expected = ["call op=\"Mlp::predict\"", "  forward layer=0", "  forward layer=1"];
    assert_spans(|| drop(mlp.predict(x.view()).unwrap()), &expected);
}

#[test]
fn a_call_that_fails_ends_its_spans() {
    let mut trainer = Trainer::new(model(), Loss::Mse, Sgd::new(0.1)).unwrap();
    let (mut x, y) = (Matrix::zeros(5, 3), Matrix::zeros(5, 2));
    x.as_mut_slice()[0] = f32::NAN;
    let run = || drop(trainer.step(x.view(), Targets::Values(y.view())).unwrap_err());
    assert_spans(run, &["call op=\"Trainer::step\"", "  checks"]);
}
