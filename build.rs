//! Records the facts that a benchmark figure or a bug report must state: see `percycle::build_info`.

use std::process::Command;

/// The first line that `program args` prints, or `None` when it cannot be run (a published tarball has no git).
fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// The revision of *this* package: a tarball unpacked inside somebody else's repository must not report theirs.
fn git_revision() -> Option<String> {
    let top = first_line("git", &["rev-parse", "--show-toplevel"])?;
    let here = std::fs::canonicalize(env("CARGO_MANIFEST_DIR")).ok()?;
    if std::fs::canonicalize(top).ok()? != here {
        return None;
    }
    let revision = first_line("git", &["rev-parse", "--short=12", "HEAD"])?;
    let dirty = first_line("git", &["status", "--porcelain", "--untracked-files=no"]).is_some();
    Some(if dirty { format!("{revision}-dirty") } else { revision })
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for path in [".git/HEAD", ".git/index", "src", "Cargo.toml"] {
        if std::path::Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let rustc = first_line(&env("RUSTC"), &["--version"]).unwrap_or_else(|| "unknown".into());
    let facts = [
        ("RUSTC", rustc),
        ("TARGET", env("TARGET")),
        ("PROFILE", env("PROFILE")),
        ("OPT_LEVEL", env("OPT_LEVEL")),
        ("TARGET_FEATURES", env("CARGO_CFG_TARGET_FEATURE")),
        (
            "ISAS",
            if env("CARGO_CFG_TARGET_ARCH") == "x86_64" { "avx512,avx2,portable" } else { "portable" }.into(),
        ),
        ("GIT", git_revision().unwrap_or_default()),
    ];
    for (name, value) in facts {
        println!("cargo:rustc-env=PERCYCLE_BUILD_{name}={value}");
    }
}
