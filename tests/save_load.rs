//! Files: what is saved comes back to the bit; anything else is an error that names the file.

use std::fs;

use percycle::{Activation, Mlp};

fn net() -> Mlp {
    use Activation::{Gelu, GeluTanh, Identity, LeakyRelu, Relu, Sigmoid, Silu, Tanh};
    let mut builder = Mlp::builder(3).seed(11);
    for activation in
        [Identity, Relu, LeakyRelu(0.1), LeakyRelu(-1.5e-39), Sigmoid, Tanh, Gelu, GeluTanh, Silu]
    {
        builder = builder.layer(2, activation);
    }
    builder.build().unwrap()
}

#[test]
fn what_is_saved_comes_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let mut mlp = net();
    // Numbers that a detour through decimals or another order would lose.
    mlp.layers_mut()[0].set_bias(&[-0.0, f32::MIN_POSITIVE / 3.0]).unwrap();
    mlp.save(&path).unwrap();
    let loaded = Mlp::load(&path).unwrap();
    assert_eq!(loaded, mlp);
    assert_eq!(loaded.layers()[0].bias()[0].to_bits(), (-0.0_f32).to_bits());
    mlp.save(&path).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays behind");
}

#[test]
fn a_truncated_file_is_an_error_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    Mlp::builder(2).layer(2, Activation::Relu).build().unwrap().save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let error = Mlp::load(&path).unwrap_err().to_string();
        assert!(error.contains("net.safetensors"), "{len}: {error}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    fs::write(&path, &longer).unwrap();
    assert!(Mlp::load(&path).is_err());
}

#[test]
fn a_changed_header_is_an_error_or_a_network_but_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    Mlp::builder(2).layer(1, Activation::Relu).build().unwrap().save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut refused = 0;
    for at in 0..header {
        for value in [0, b'0', b'9', b'"', 0xff] {
            let mut changed = whole.clone();
            changed[at] = value;
            fs::write(&path, &changed).unwrap();
            refused += usize::from(Mlp::load(&path).is_err());
        }
    }
    assert!(refused > header, "{refused} of {} changes were noticed", header * 5);
}

#[test]
fn foreign_and_missing_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Mlp::load(folder.path().join("missing")).unwrap_err().to_string();
    assert!(error.starts_with("Mlp::load ") && error.contains("missing"), "{error}");
    let path = folder.path().join("foreign");
    let data = [0_u8; 8];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &data).unwrap();
    fs::write(&path, safetensors::serialize([("w", view)], None).unwrap()).unwrap();
    let error = Mlp::load(&path).unwrap_err().to_string();
    assert!(error.contains("not written by Mlp::save"), "{error}");
    assert!(net().save(folder.path().join("no/such/folder/net")).is_err());
}
