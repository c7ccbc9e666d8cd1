//! File to model.
