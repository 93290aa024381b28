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

#[test]
fn a_step_is_a_span_of_its_phases() {
    let mlp = Mlp::builder(3).layer(4, Activation::Relu).layer(2, Activation::Identity).build().unwrap();
    let mut trainer = Trainer::new(mlp, Loss::Mse, Sgd::new(0.1)).unwrap();
    let (x, y, spans) = (Matrix::zeros(5, 3), Matrix::zeros(5, 2), Spans::default());
    tracing::subscriber::with_default(spans.clone(), || {
        trainer.step(x.view(), Targets::Values(y.view())).unwrap();
    });
    let (names, depth) = std::mem::take(&mut *spans.0.lock().unwrap());
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
    assert_eq!((names, depth), (expected.map(str::to_owned).to_vec(), 0));
}
