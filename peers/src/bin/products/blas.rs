//! BLAS libraries, loaded when the program runs, where the machine has them.

use std::ffi::{CStr, c_char, c_int};
use std::path::Path;

use libloading::{Library, Symbol};
use percycle_peers::Failure;

use crate::crates::Peer;
use percycle_peers::problem::{Lying, Problem};

#[rustfmt::skip]
type Sgemm = unsafe extern "C" fn(
    order: c_int, trans_a: c_int, trans_b: c_int, m: c_int, n: c_int, k: c_int,
    alpha: f32, a: *const f32, lda: c_int, b: *const f32, ldb: c_int, beta: f32, c: *mut f32, ldc: c_int,
);

// Of cblas.h.
const ROW_MAJOR: c_int = 101;
const NO_TRANS: c_int = 111;
const TRANS: c_int = 112;

/// A library that has `cblas_sgemm`.
pub struct Blas {
    name: String,
    sgemm: Sgemm,
    /// Unloaded when dropped; `sgemm` points into it.
    _library: Library,
}

/// What differs between the libraries. PyPI's builds of OpenBLAS put a prefix before every name.
struct Kind {
    name: &'static str,
    prefix: &'static str,
    set_threads: &'static str,
    describe: fn(&Library) -> Option<String>,
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "OpenBLAS",
        prefix: "",
        set_threads: "openblas_set_num_threads",
        describe: |library| openblas(library, ""),
    },
    Kind {
        name: "OpenBLAS",
        prefix: "scipy_",
        set_threads: "scipy_openblas_set_num_threads",
        describe: |library| openblas(library, "scipy_"),
    },
    Kind { name: "MKL", prefix: "", set_threads: "MKL_Set_Num_Threads", describe: mkl },
];

impl Blas {
    /// Loads a library, and tells it how many threads it may use.
    pub fn load(path: &Path, threads: usize) -> Result<Blas, Failure> {
        // SAFETY: the user named this file as a BLAS library; loading one runs only its initialisers.
        let library = unsafe { Library::new(path) }?;
        // SAFETY: OpenBLAS and MKL both declare `void set(int)`, each under a name that nobody else has.
        let known =
            |kind: &&Kind| unsafe { library.get::<unsafe extern "C" fn(c_int)>(kind.set_threads) }.is_ok();
        let kind = KINDS.iter().find(known).ok_or("it is neither OpenBLAS nor MKL")?;
        let symbol = format!("{}cblas_sgemm", kind.prefix);
        // SAFETY: the types are those of the libraries' headers, with ints of 32 bits as in all of the file names
        // that this program looks for.
        let sgemm = unsafe {
            library.get::<unsafe extern "C" fn(c_int)>(kind.set_threads)?(c_int::try_from(threads)?);
            *library.get::<Sgemm>(symbol.as_str())?
        };
        if let Some(description) = (kind.describe)(&library) {
            println!("{}: {description}", kind.name);
        }
        Ok(Blas { name: kind.name.to_owned(), sgemm, _library: library })
    }
}

fn openblas(library: &Library, prefix: &str) -> Option<String> {
    let symbol = format!("{prefix}openblas_get_config");
    // SAFETY: openblas_config.h declares `char *openblas_get_config(void)`, which returns a constant string.
    let text = unsafe {
        let config: Symbol<unsafe extern "C" fn() -> *const c_char> = library.get(symbol.as_str()).ok()?;
        CStr::from_ptr(config())
    };
    Some(text.to_string_lossy().into_owned())
}

fn mkl(library: &Library) -> Option<String> {
    let mut text = [0_u8; 256];
    // SAFETY: mkl_service.h declares `void mkl_get_version_string(char *buffer, int length)`, here under the name
    // that it has in C; it writes at most `length` bytes.
    unsafe {
        let version: Symbol<unsafe extern "C" fn(*mut c_char, c_int)> =
            library.get("MKL_Get_Version_String").ok()?;
        version(text.as_mut_ptr().cast(), text.len() as c_int);
    }
    text[text.len() - 1] = 0;
    Some(CStr::from_bytes_until_nul(&text).ok()?.to_string_lossy().trim().to_owned())
}

impl Peer for Blas {
    fn name(&self) -> &str {
        &self.name
    }

    fn multiply(&self, problem: &Problem, c: &mut [f32]) {
        assert_eq!(c.len(), problem.m * problem.n);
        let int = |n: usize| c_int::try_from(n).expect("the grid is small");
        let lies = |lying: Lying| match lying.transposed {
            false => (NO_TRANS, int(lying.cols)),
            true => (TRANS, int(lying.rows)),
        };
        let ((trans_a, lda), (trans_b, ldb)) = (lies(problem.lying_a), lies(problem.lying_b));
        let (m, n, k) = (int(problem.m), int(problem.n), int(problem.k));
        let (a, b, c) = (problem.a().as_ptr(), problem.b().as_ptr(), c.as_mut_ptr());
        // SAFETY: a `Problem` holds every element that its strides name, and C, borrowed mutably, is m x n.
        unsafe { (self.sgemm)(ROW_MAJOR, trans_a, trans_b, m, n, k, 1.0, a, lda, b, ldb, 0.0, c, n) }
    }
}
