//! The krun_* C functions of libkrun, kept in a static library.
pub use krun::*;
