//! What must hold for any bytes: the bodies of the fuzz targets in `fuzz/`,
//! and how to read their corpora. Nothing of a fuzzer is here, so an ordinary
//! test runs them too.

pub mod corpus;
pub mod redispatch;
mod sum;
mod take;
pub mod track;
pub mod translate;
pub mod wire;

/// A target: bytes in, a panic where something does not hold.
pub type Target = fn(&[u8]);

/// Every target and the name of its corpus.
pub const TARGETS: [(&str, Target); 4] = [
    ("wire", wire::run),
    ("track", track::run),
    ("redispatch", redispatch::run),
    ("translate", translate::run),
];
