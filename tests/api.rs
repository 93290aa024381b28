//! The names and signatures that programs are compiled against: that this file compiles is the test. Functions are
//! coerced to the types promised, and traits asked for; what happens when they run is tested elsewhere.

// Types written out as they are promised: that is what this file is for.
#![allow(clippy::type_complexity, clippy::extra_unused_lifetimes)]

use std::path::Path;

use percycle::{
    Activation, Adam, AdamW, Clip, Dataset, Error, Evaluation, FitOptions, History, Init, Isa, Linear, Loss,
    MatMut, MatRef, Matrix, Mlp, MlpBuilder, Optimizer, PackedWeights, Result, Sgd, Targets, Trainer,
    Workspace,
};

/// Coerces each item to the type promised.
macro_rules! promised {
    ($($item:expr => $type:ty;)+) => {
        $(let _: $type = $item;)+
    };
}

#[test]
fn matrices() {
    fn of_any_life<'a>() {
        promised! {
            MatRef::new => fn(&'a [f32], usize, usize) -> Result<MatRef<'a>>;
            MatRef::strided => fn(&'a [f32], usize, usize, usize, usize) -> Result<MatRef<'a>>;
            MatRef::t => fn(MatRef<'a>) -> MatRef<'a>;
            MatMut::new => fn(&'a mut [f32], usize, usize) -> Result<MatMut<'a>>;
            MatMut::strided => fn(&'a mut [f32], usize, usize, usize, usize) -> Result<MatMut<'a>>;
            MatMut::t => fn(MatMut<'a>) -> MatMut<'a>;
        }
    }
    of_any_life();
    promised! {
        MatRef::rows => fn(&MatRef<'static>) -> usize;
        MatRef::cols => fn(&MatRef<'static>) -> usize;
        MatMut::rows => fn(&MatMut<'static>) -> usize;
        MatMut::cols => fn(&MatMut<'static>) -> usize;
        Matrix::zeros => fn(usize, usize) -> Matrix;
        Matrix::from_vec => fn(usize, usize, Vec<f32>) -> Result<Matrix>;
        Matrix::view => for<'a> fn(&'a Matrix) -> MatRef<'a>;
        Matrix::view_mut => for<'a> fn(&'a mut Matrix) -> MatMut<'a>;
        Matrix::as_slice => for<'a> fn(&'a Matrix) -> &'a [f32];
        Matrix::row => for<'a> fn(&'a Matrix, usize) -> Option<&'a [f32]>;
    }
}

#[test]
fn products() {
    promised! {
        percycle::matmul => fn(MatRef, MatRef, MatMut) -> Result<()>;
        percycle::gemm => fn(f32, MatRef, MatRef, f32, MatMut) -> Result<()>;
        percycle::linear => fn(MatRef, MatRef, Option<&[f32]>, Activation, MatMut) -> Result<()>;
        PackedWeights::new => fn(MatRef) -> PackedWeights;
        percycle::linear_packed => fn(MatRef, &PackedWeights, Option<&[f32]>, Activation, MatMut) -> Result<()>;
    }
    // A drop-in: the two have one type.
    let _ = [percycle::sgemm, matrixmultiply::sgemm];
}

#[test]
fn instruction_sets() {
    promised! {
        Isa::current => fn() -> Isa;
        Isa::name => fn(Isa) -> &'static str;
    }
    let _: Option<Isa> = Isa::available().next();
}

#[test]
fn networks() {
    promised! {
        Mlp::builder => fn(usize) -> MlpBuilder;
        MlpBuilder::layer => fn(MlpBuilder, usize, Activation) -> MlpBuilder;
        MlpBuilder::init => fn(MlpBuilder, Init) -> MlpBuilder;
        MlpBuilder::seed => fn(MlpBuilder, u64) -> MlpBuilder;
        MlpBuilder::build => fn(MlpBuilder) -> Result<Mlp>;
        Mlp::layers => for<'a> fn(&'a Mlp) -> &'a [Linear];
        Mlp::layers_mut => for<'a> fn(&'a mut Mlp) -> &'a mut [Linear];
        Linear::in_features => fn(&Linear) -> usize;
        Linear::out_features => fn(&Linear) -> usize;
        Linear::activation => fn(&Linear) -> Activation;
        Linear::bias => for<'a> fn(&'a Linear) -> &'a [f32];
        Linear::weight => fn(&Linear) -> Matrix;
        Linear::set_weight => fn(&mut Linear, MatRef) -> Result<()>;
        Linear::set_bias => fn(&mut Linear, &[f32]) -> Result<()>;
        Mlp::predict => fn(&Mlp, MatRef) -> Result<Matrix>;
        Mlp::predict_into => fn(&Mlp, MatRef, &mut Workspace, MatMut) -> Result<()>;
    }
    // Any path will do.
    let _ = |mlp: &Mlp| -> Result<Mlp> {
        mlp.save("model.safetensors")?;
        mlp.save(Path::new("model.safetensors"))?;
        Mlp::load("model.safetensors")?;
        Mlp::load(Path::new("model.safetensors"))
    };
}

#[test]
fn training() {
    use Activation::*;
    let _ = [Identity, Relu, LeakyRelu(0.1), Sigmoid, Tanh, Gelu, GeluTanh, Silu];
    let _ = [Loss::Mse, Loss::Bce, Loss::BceWithLogits, Loss::CrossEntropy { label_smoothing: 0.1_f32 }];
    let _: Optimizer =
        Sgd::new(0.1_f32).momentum(0.9).dampening(0.0).nesterov(true).weight_decay(1e-4).into();
    let _: Optimizer = Adam::new(0.1_f32).betas(0.9, 0.999).eps(1e-8).weight_decay(0.0).into();
    let _: Optimizer = AdamW::new(0.1_f32).betas(0.9, 0.999).eps(1e-8).weight_decay(0.01).into();
    let _ = |values, classes: &'static [u32]| [Targets::Values(values), Targets::Classes(classes)];
    promised! {
        Trainer::new => fn(Mlp, Loss, Sgd) -> Result<Trainer>;
        Trainer::new => fn(Mlp, Loss, Optimizer) -> Result<Trainer>;
        Trainer::with_clip => fn(Trainer, Clip) -> Result<Trainer>;
        Trainer::step => fn(&mut Trainer, MatRef, Targets) -> Result<f32>;
        Trainer::accumulate => fn(&mut Trainer, MatRef, Targets) -> Result<f32>;
        Trainer::apply => fn(&mut Trainer) -> Result<()>;
        Trainer::fit => fn(&mut Trainer, &Dataset, &FitOptions) -> Result<History>;
        Trainer::evaluate => fn(&mut Trainer, &Dataset) -> Result<Evaluation>;
        Trainer::model => for<'a> fn(&'a Trainer) -> &'a Mlp;
        Trainer::into_model => fn(Trainer) -> Mlp;
    }
}

#[test]
fn what_is_copied_cloned_and_shared() {
    fn copy<T: Copy + Send + Sync>() {}
    fn owned<T: Clone + Send + Sync>() {}
    fn error<T: std::error::Error + Send + Sync + 'static>() {}
    copy::<MatRef>();
    copy::<Activation>();
    copy::<Loss>();
    copy::<Targets>();
    copy::<Optimizer>();
    copy::<Clip>();
    copy::<Isa>();
    // Many threads predict with one of these.
    owned::<Mlp>();
    owned::<PackedWeights>();
    owned::<Matrix>();
    owned::<Dataset>();
    owned::<Trainer>();
    owned::<Workspace>();
    owned::<History>();
    error::<Error>();
    // A writable view goes to another thread; it is not copied, for then two could write to one place.
    fn send<T: Send>() {}
    send::<MatMut>();
}
