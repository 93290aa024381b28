//! `PERCYCLE_ISA` pins an instruction set for a process. It is read once, so each value is given to a process of its own:
//! this test file, run again for the one ignored test.

use std::process::Command;

use percycle::{Activation, Error, Isa, MatRef, Matrix, Mlp, matmul};

/// Every name that percycle has ever had.
const NAMES: [&str; 3] = ["avx512", "avx2", "portable"];

const PROBE: &str = "probe";

/// What the probe says in a process with this `PERCYCLE_ISA`.
fn ask(pinned: Option<&str>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", PROBE, "--ignored", "--nocapture"]).env_remove("PERCYCLE_ISA");
    if let Some(name) = pinned {
        command.env("PERCYCLE_ISA", name);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{pinned:?}: {text}");
    // The test runner may have begun a line of its own before it.
    let says = |line: &str| line.split_once("says: ").map(|(_, said)| said.to_owned());
    text.lines().find_map(says).unwrap_or_else(|| panic!("the probe said nothing: {text}"))
}

#[test]
#[ignore = "runs in the processes that the other tests start"]
fn probe() {
    let one = Matrix::zeros(1, 1);
    let product = || matmul(one.view(), one.view(), Matrix::zeros(1, 1).view_mut());
    let activation = || Activation::Tanh.apply(&mut [0.5]);
    let network = || {
        let mlp = Mlp::builder(1).layer(1, Activation::Relu).build()?;
        mlp.predict(MatRef::new(&[1.0], 1, 1)?).map(drop)
    };
    let said = match Isa::try_current() {
        Ok(isa) => {
            [product(), activation(), network()].into_iter().for_each(Result::unwrap);
            assert_eq!(isa, Isa::current());
            isa.name().to_owned()
        }
        Err(error) => {
            let error = error.to_string();
            for refused in [product(), activation(), network()] {
                assert_eq!(refused.unwrap_err().to_string(), error);
            }
            // Not even then is a call that pins another one refused.
            for isa in Isa::available() {
                isa.pin(|| product().unwrap());
            }
            error
        }
    };
    println!("says: {said}");
}

#[test]
fn each_available_name_pins() {
    let best = Isa::available().next().unwrap();
    assert_eq!(ask(None), best.name());
    assert_eq!(ask(Some("")), best.name());
    for isa in Isa::available() {
        assert_eq!(ask(Some(isa.name())), isa.name());
    }
}

#[test]
fn a_name_that_cannot_be_had_is_an_error_that_says_what_can() {
    let available: Vec<_> = Isa::available().map(Isa::name).collect();
    let missing = NAMES.into_iter().filter(|name| !available.contains(name));
    for name in missing.chain(["nonsense", "AVX2", "avx2 "]) {
        let want =
            format!("instruction set `{name}` is not to be had here: this CPU runs {}", available.join(", "));
        assert_eq!(ask(Some(name)), want);
        assert!(matches!(Isa::by_name(name), Err(Error::Isa { requested, .. }) if requested == name));
    }
}
