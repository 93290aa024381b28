//! Networks in safetensors files: `layers.N.weight` as `[out, in]` and `layers.N.bias`, as PyTorch would name them, and
//! the activations in the metadata.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::{Linear, Mlp};
use crate::error::{Error, Result};
use crate::kernels::Activation;
use crate::matrix::MatRef;

const FORMAT: &str = "percycle-mlp-1";

impl Mlp {
    /// Writes the network to a safetensors file. The file appears whole or not at all: it is written beside its place
    /// and then renamed.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    ///
    /// ```
    /// use percycle::{Activation, Mlp};
    ///
    /// let path = std::env::temp_dir().join(format!("percycle-doc-{}.safetensors", std::process::id()));
    /// let mlp = Mlp::builder(3).layer(2, Activation::Silu).seed(7).build()?;
    /// mlp.save(&path)?;
    /// assert_eq!(Mlp::load(&path)?, mlp);
    /// # std::fs::remove_file(path).ok();
    /// # Ok::<(), percycle::Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut metadata = HashMap::from([("format".to_owned(), FORMAT.to_owned())]);
        metadata.insert("layers".to_owned(), self.layers().len().to_string());
        let mut tensors = Vec::new();
        for (n, layer) in self.layers().iter().enumerate() {
            metadata.insert(format!("layers.{n}.activation"), spell(layer.activation()));
            let (outputs, inputs) = (layer.out_features(), layer.in_features());
            tensors.push((
                format!("layers.{n}.weight"),
                vec![outputs, inputs],
                bytes(layer.weight().as_slice()),
            ));
            tensors.push((format!("layers.{n}.bias"), vec![outputs], bytes(layer.bias())));
        }
        let format = |problem: String| Error::Format { op: "Mlp::save", path: path.into(), problem };
        let views = tensors
            .iter()
            .map(|(name, shape, data)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data)?)))
            .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|error| format(error.to_string()))?;
        let file =
            safetensors::serialize(views, Some(metadata)).map_err(|error| format(error.to_string()))?;
        write_whole(path, &file).map_err(|source| Error::Io { op: "Mlp::save", path: path.into(), source })
    }

    /// Reads a network that [`Mlp::save`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Format`] when it is not such a network: truncated, foreign,
    /// or layers that do not fit each other.
    pub fn load(path: impl AsRef<Path>) -> Result<Mlp> {
        let path = path.as_ref();
        let file =
            fs::read(path).map_err(|source| Error::Io { op: "Mlp::load", path: path.into(), source })?;
        parse(&file).map_err(|problem| Error::Format { op: "Mlp::load", path: path.into(), problem })
    }
}

fn parse(file: &[u8]) -> std::result::Result<Mlp, String> {
    let broken = |error: safetensors::SafeTensorError| {
        format!("not a whole safetensors file ({error}): save the network again")
    };
    let (_, header) = SafeTensors::read_metadata(file).map_err(broken)?;
    let tensors = SafeTensors::deserialize(file).map_err(broken)?;
    let foreign = || "it has no percycle metadata: it was not written by Mlp::save".to_owned();
    let metadata = header.metadata().as_ref().ok_or_else(foreign)?;
    let format = metadata.get("format").ok_or_else(foreign)?;
    if format != FORMAT {
        return Err(format!("its format is `{format}`, this version reads `{FORMAT}`"));
    }
    let count: usize =
        metadata.get("layers").and_then(|n| n.parse().ok()).ok_or("its metadata lacks `layers`")?;
    if count == 0 || tensors.len() != count.checked_mul(2).ok_or("its metadata `layers` overflows")? {
        return Err(format!("its metadata says {count} layers, but it holds {} tensors", tensors.len()));
    }
    let mut layers: Vec<Linear> = Vec::new();
    for n in 0..count {
        let tensor = |name: String, dimensions: usize| {
            let tensor = tensors.tensor(&name).map_err(|_| format!("`{name}` is missing"))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape().len() != dimensions {
                let (dtype, shape) = (tensor.dtype(), tensor.shape());
                return Err(format!("`{name}` is {dtype:?} {shape:?}, not F32 with {dimensions} dimensions"));
            }
            Ok(tensor)
        };
        let weight = tensor(format!("layers.{n}.weight"), 2)?;
        let bias = tensor(format!("layers.{n}.bias"), 1)?;
        let (outputs, inputs) = (weight.shape()[0], weight.shape()[1]);
        let expected = layers.last().map_or(inputs, Linear::out_features);
        if outputs == 0 || inputs != expected || inputs == 0 || bias.shape() != [outputs] {
            let shapes = (weight.shape(), bias.shape());
            return Err(format!(
                "layer {n} has weight and bias {shapes:?}, which do not fit the layer before"
            ));
        }
        let spelled = metadata.get(&format!("layers.{n}.activation")).ok_or("an activation is missing")?;
        let activation =
            parse_activation(spelled).ok_or(format!("it has an unknown activation `{spelled}`"))?;
        let mut layer = Linear::zeros(inputs, outputs, activation).map_err(|error| error.to_string())?;
        let values = floats(weight.data());
        let view = MatRef::new(&values, outputs, inputs).map_err(|error| error.to_string())?;
        layer.set_weight(view).map_err(|error| error.to_string())?;
        layer.set_bias(&floats(bias.data())).map_err(|error| error.to_string())?;
        layers.push(layer);
    }
    Ok(Mlp::from_layers(layers))
}

/// Writes beside the file, then renames: a crash leaves the old file or the new one.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Nothing half-written stays behind; that there may be nothing to remove is fine.
        fs::remove_file(&temporary).ok();
    }
    written
}

/// Little-endian bytes, on every machine.
fn bytes(values: &[f32]) -> Vec<u8> {
    if cfg!(target_endian = "little") {
        bytemuck::cast_slice(values).to_vec()
    } else {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// The activation's name; the slope of LeakyReLU behind a colon, in decimals that give back the same bits.
fn spell(activation: Activation) -> String {
    match activation {
        Activation::LeakyRelu(slope) => format!("{}:{slope:?}", activation.name()),
        _ => activation.name().to_owned(),
    }
}

fn parse_activation(spelled: &str) -> Option<Activation> {
    use Activation::*;
    if let Some(slope) = spelled.strip_prefix("leaky_relu:") {
        return slope.parse().ok().map(LeakyRelu).filter(|leaky| leaky.validate().is_ok());
    }
    [Identity, Relu, Sigmoid, Tanh, Gelu, GeluTanh, Silu].into_iter().find(|known| known.name() == spelled)
}
